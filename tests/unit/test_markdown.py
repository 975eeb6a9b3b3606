"""The Markdown table: one row a contender, well-formed whatever the names hold."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from scalepilot.evaluate import Contender, compare
from scalepilot.report.words.markdown import markdown_table
from scalepilot.simulate import EpisodeResults, EpisodeSet

DAY = 86400.0
WINDOWS, STEPS = 6, 4


def episodes(workload="shop", days=3):
    rates = np.random.default_rng(0).uniform(10, 50, (WINDOWS, STEPS))
    return EpisodeSet(
        workload, rates, rates * 15, np.arange(WINDOWS), np.zeros(WINDOWS, dtype=int), np.arange(WINDOWS) * days // WINDOWS * DAY
    )


def results(of, J):
    J = np.broadcast_to(J, len(of)).astype(float)
    zero, arrived = np.zeros(len(of)), of.arrived.sum(axis=1)
    flown = {"replica_cost": J, "late_cost": zero, "move_cost": zero, "dropped_requests": zero, "arrived_requests": arrived}
    flown |= {"replicas_mean": zero + 9, "replicas_peak": zero + 12, "late_requests": 0.0123 * arrived}
    flown |= {"latency_p95_seconds": zero + 0.08, "actions": zero + 5, "moved_replicas": zero + 7}
    return EpisodeResults(of.window, of.seed, {"J_per_hour": J, **flown})


def compared(workload="shop", *, bound=4.0, policy_J=7.0, days=3, names=("ppo", "seed 0")):
    of = episodes(workload, days)
    contenders = [
        Contender(names[0], "policy", names[1], results(of, policy_J)),
        Contender("hpa-default", "baseline", "cpu 0.70", results(of, 20.0)),
        Contender("hpa-tuned-cpu", "baseline", "cpu 0.5", results(of, 12.0)),
        Contender("hpa-tuned-rps", "baseline", "rps 0.57", results(of, 10.0)),
        Contender("never", "baseline", "", results(of, 30.0)),
        Contender("optimum", "reference", "clairvoyant", results(of, 5.0)),
    ]
    lower = None if bound is None else np.broadcast_to(bound, len(of))
    return compare(workload, of, contenders, bootstrap_samples=20, bound=lower)


def cells_of(table):
    """Rows of cells, the separator left out; pipes that are escaped do not split."""
    rows = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for i, line in enumerate(rows) if i != 1]


def test_every_row_has_as_many_cells_as_the_head_and_the_separator():
    table = markdown_table([compared(), compared("mail")])
    lines = table.splitlines()
    assert lines[0].startswith("| workload | rule | J an hour |")
    assert re.fullmatch(r"\|(:?-+:?\|){8}", lines[1])
    assert {len(row) for row in cells_of(table)} == {8}
    assert len(lines) == 2 + 2 * 6
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines[2:])


def test_rows_are_cheapest_first_within_their_role_and_the_workload_is_named_once():
    rows = cells_of(markdown_table([compared(), compared("mail")]))[1:]
    assert [row[0].split(" ")[0] for row in rows if row[0]] == ["shop", "mail"]
    assert [row[1] for row in rows[:6]] == [
        "ppo (seed 0)",
        "**hpa-tuned-rps** (rps 0.57)",
        "hpa-tuned-cpu (cpu 0.5)",
        "hpa-default (cpu 0.70)",
        "never",
        "optimum (clairvoyant)",
    ]
    assert [row[2] for row in rows[:6]] == ["7.000", "10.000", "12.000", "20.000", "30.000", "5.000"]
    assert rows[0][4:6] == ["9.00", "1.23"]


def test_the_gap_goes_from_the_default_and_from_the_best_tuned_hpa_to_the_bound():
    rows = {row[1].split(" ")[0]: row[6:] for row in cells_of(markdown_table([compared()]))[1:]}
    # From 20 to 4 the policy at 7 closes 13 / 16, from 10 to 4 a half.
    assert rows["ppo"] == ["0.81 (0.81 to 0.81)", "0.50 (0.50 to 0.50)"]
    assert rows["hpa-default"] == ["", "−1.67 (−1.67 to −1.67)"]
    assert rows["**hpa-tuned-rps**"][1] == ""
    assert rows["optimum"] == ["", ""]


def test_pairs_left_out_are_counted():
    rows = {row[1].split(" ")[0]: row[6:] for row in cells_of(markdown_table([compared(bound=[4.0] * 5 + [9.9])]))[1:]}
    assert rows["ppo"][1] == "0.50 (0.50 to 0.50), 1 of 6 pairs left out"


def test_without_any_gap_or_any_hpa_the_cells_are_empty():
    assert cells_of(markdown_table([compared(bound=20.0)]))[1][6:] == ["", ""]
    of = episodes()
    alone = compare("shop", of, [Contender("ppo", "policy", "", results(of, 7.0))], bootstrap_samples=20)
    assert cells_of(markdown_table([alone]))[1][6:] == []


def test_a_single_window_has_no_interval():
    whole = compared()
    J = replace(whole.rows["ppo"]["J"], low=math.nan, high=math.nan)
    rows = {**whole.rows, "ppo": {**whole.rows["ppo"], "J": J}}
    assert cells_of(markdown_table([replace(whole, rows=rows)]))[1][3] == ""


@pytest.mark.parametrize("name", ["a|b", "a\nb", "|"])
def test_pipes_and_line_breaks_in_names_do_not_break_the_table(name):
    table = markdown_table([compared(f"shop {name}", names=(f"ppo {name}", f"with {name}"))])
    assert len(table.splitlines()) == 2 + 6
    assert {len(row) for row in cells_of(table)} == {8}
    if name == "a|b":
        assert "ppo a\\|b (with a\\|b)" in table


def test_without_the_optimum_the_table_says_what_the_gap_is_closed_towards():
    assert "no bound" not in markdown_table([compared()])
    table = markdown_table([compared(), compared("mail", bound=None)])
    note = table.split("\n\n")[1]
    assert "reference that is no bound: optimum (mail)" in note
    assert "shop" not in note
