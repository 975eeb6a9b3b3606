"""A transfer table in words and tables: who is cheapest at home, what a policy or rule costs away from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scalepilot.evaluate.transfer import Source, Transfer, policy_is_cheaper, ranked
from scalepilot.report.words.figures import DASH, fixed, percent

HOW = (
    "A row's own traffic is what it was trained, tuned or fitted on; every figure is of the test part. J is money an hour:"
    " replicas and late requests. ±: half of the 95 % interval over training seeds and days."
)
_METRICS = {"cost": "replicas alone", "J": "replicas and late requests together (J)"}


@dataclass(frozen=True)
class TransferTable:
    """Cells as text.

    Attributes:
        title: above it.
        headings: the first of the row's name.
        rows: cells, the name first.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(transfer: Transfer) -> tuple[TransferTable, ...]:
    """At home: J, replicas and late requests apart; then what coming from other traffic costs."""
    headings = ("", *transfer.workloads)

    def home(show: Callable[[Source, str], str]) -> tuple[tuple[str, ...], ...]:
        return tuple((label, *(show(transfer.own(label, w), w) for w in transfer.workloads)) for label in transfer.labels)

    def interval(source: Source, workload: str) -> str:
        found = transfer.figure(source, workload, "J")
        return fixed(found.mean, 2) + (f" ±{fixed((found.high - found.low) / 2, 2)}" if found.is_known else "")

    away = []
    for label in transfer.labels:
        figures = [transfer.away(label, workload) for workload in transfer.workloads]
        if any(figure is not None for figure in figures):
            away.append((label, *(DASH if figure is None else fixed(figure, 2) for figure in figures)))
    return (
        TransferTable("J an hour, on its own traffic", headings, home(interval)),
        TransferTable(
            "Money for replicas an hour, on its own traffic",
            headings,
            home(lambda s, w: fixed(transfer.figure(s, w, "cost").mean, 2)),
        ),
        TransferTable(
            "Late requests in %, on its own traffic",
            headings,
            home(lambda s, w: percent(transfer.figure(s, w, "late_share").mean)),
        ),
        TransferTable(
            f"J from other traffic: median over the others, in multiples of {transfer.yardstick} tuned on the tested one",
            headings,
            tuple(away),
        ),
    )


def claims(transfer: Transfer) -> list[str]:
    """Whether a rule is cheapest everywhere, in replicas alone and with late requests, and how far that is beyond chance."""
    return [_claim(transfer, metric) for metric in _METRICS]


def transfer_markdown(transfer: Transfer) -> list[str]:
    """The section of analysis.md."""
    lines = ["## Transfer", "", *(text for claim in claims(transfer) for text in (claim, "")), HOW, ""]
    for table in tables(transfer):
        lines += [f"### {table.title}", "", *_markdown(table), ""]
    for label in transfer.labels:
        if transfer.of_label(label)[0].learnt_on is not None:
            lines += [f"### {label}: J (late %) by origin (down) and tested traffic (across)", "", *_matrix(transfer, label), ""]
    return lines


def _claim(transfer: Transfer, metric: str) -> str:
    count, what = len(transfer.workloads), _METRICS[metric]
    if len({source.role for source in transfer.sources}) < 2:
        return f"In {what} there is nothing to compare: rules and policies must both take part."
    by_role: dict[str, list[str]] = {"baseline": [], "policy": []}
    for workload in transfer.workloads:
        first, _ = ranked(transfer, workload, metric)
        sure = policy_is_cheaper(transfer, workload, metric) is not None
        by_role[first.role].append(f"{workload} ({first.label}{'' if sure else ', within chance'})")
    parts = [
        f"{who} has least on {len(found)} of {count}: {', '.join(found)}"
        for who, found in (("a rule", by_role["baseline"]), ("a policy", by_role["policy"]))
        if found
    ]
    return f"In {what} {'; '.join(parts)}."


def _matrix(transfer: Transfer, label: str) -> list[str]:
    rows = []
    for source in transfer.of_label(label):
        cells = (
            f"{transfer.figure(source, w, 'J').mean:.2f} ({percent(transfer.figure(source, w, 'late_share').mean)})"
            for w in transfer.workloads
        )
        rows.append((f"from {source.learnt_on}", *cells))
    return _markdown(TransferTable("", ("", *transfer.workloads), tuple(rows)))


def _markdown(table: TransferTable) -> list[str]:
    lines = [f"| {' | '.join(table.headings)} |", "|---" + "|---:" * (len(table.headings) - 1) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in table.rows)]
