"""Writes the generated sections of docs/latency.md, and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency_model import late_share, steady_state, variability
from benchmarks.latency_model.late_share import Compared
from benchmarks.latency_model.steady_state import Cell, Measured
from benchmarks.queue_simulation import Array, LoadBalancing

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PICTURE = DOCS / "latency.md", DOCS / "images" / "latency_model.png"
_TINY_SECONDS = 1e-3
_HOUR = 240
_SIMULATED, _SAKASEGAWA, _ERLANG = "#222222", "#c1440e", "#1f6f8b"


def write(
    cells: list[Measured],
    windows: list[list[Compared]],
    varied: list[variability.Varied],
    page: Path = PAGE,
    picture: Path = PICTURE,
) -> None:
    """Replace the sections that were computed; without windows, those of the traces and the picture stay."""
    text = with_section(page.read_text(encoding="utf-8"), "steady_state", p95_table(cells))
    text = with_section(text, "variability", variability.table(varied))
    if windows:
        text = with_section(text, "late_share", late_share_table(windows))
        draw(cells, windows, picture)
    page.write_text(text, encoding="utf-8")


def with_section(text: str, name: str, body: str) -> str:
    """The text with what stands between `<!-- generated:NAME -->` and `<!-- end:NAME -->` replaced.

    Raises:
        ValueError: a marker is missing.
    """
    begin, end = f"<!-- generated:{name} -->\n", f"<!-- end:{name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"the page: the markers {begin.strip()} and {end} are missing")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}{body}{end}{rest.partition(end)[2]}"


def p95_table(cells: list[Measured]) -> str:
    """95 % waits in milliseconds, with errors."""
    lines = [
        "| replicas | load | central: simulated ms | `sakasegawa` | `erlang_c` | random: simulated ms | model |",
        "|---|---|---|---|---|---|---|",
    ]
    by_key = {(m.cell.load_balancing, m.cell.servers, m.cell.load): m for m in cells}
    for servers in steady_state.SERVERS:
        for load in steady_state.LOADS:
            central, spread = (by_key[(b, servers, load)] for b in steady_state.BALANCINGS)
            columns = [
                str(servers),
                f"{load:g}",
                _simulated(central),
                _said(central, "sakasegawa"),
                _said(central, "erlang_c"),
                _simulated(spread),
                _said(spread, "erlang_c"),
            ]
            lines.append(f"| {' | '.join(columns)} |")
    figures = steady_state.summary(cells)
    lines.append("")
    for label, name in (
        ("`central`, `sakasegawa`", "central_sakasegawa"),
        ("`central`, `erlang_c`", "central_erlang_c"),
        ("`random`", "random"),
    ):
        f = figures[name]
        lines.append(
            f"- {label}: largest error {f['error_percent_largest']:.1f} %, mean {f['error_percent_mean']:.1f} %,"
            f" {f['cells_beyond_15_percent']} of {len(cells) // 2} cells beyond 15 %."
        )
    lines.append(f"- Largest standard error of the simulation: {figures['simulation_standard_error_percent_largest']:.1f} %.")
    return "\n".join(lines) + "\n"


def _simulated(measured: Measured) -> str:
    if measured.simulated == 0.0:
        return "0"
    return f"{1e3 * measured.simulated:.1f} ± {1e3 * measured.standard_error:.1f}"


def _said(measured: Measured, model: steady_state.Model) -> str:
    said, error = float(getattr(measured, model)), measured.error_percent(model)
    if measured.simulated < _TINY_SECONDS and said < _TINY_SECONDS:
        return f"{1e3 * said:.1f}"
    text = f"{1e3 * said:.1f} ({error:+.1f} %)"
    return f"**{text}**" if abs(error) > steady_state.BAR_PERCENT else text


def late_share_table(windows: list[list[Compared]]) -> str:
    """Late shares and errors in points, by balancing, trace and HPA."""
    lines = [
        "| balancing | trace | HPA | late %: simulated | model | error of an interval: `sakasegawa` | `erlang_c` |"
        " against the mean of 3 simulations | bias | two simulations apart |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (trace, hpa, balancing), group in late_share.grouped(windows).items():
        e = late_share.errors(group)
        numbers = (e["late_simulated"], e["late_model"], e["error_sakasegawa"], e["error_erlang_c"], e["error_against_mean"])
        columns = [balancing, late_share.TRACE_NAMES[trace], hpa, *(f"{x:.2f}" for x in numbers)]
        columns += [f"{e['bias']:+.2f}", f"{e['between_simulations']:.2f}"]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def draw(cells: list[Measured], windows: list[list[Compared]], picture: Path) -> None:
    """Top: 95 % waits by load for each number of replicas. Bottom: late shares of intervals, a window and all of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.0, 1.15))
    top, bottom = halves
    top.suptitle("95 % wait in the steady state (ms), by load", fontsize=11)
    panels = list(top.subplots(1, len(steady_state.SERVERS) + 1, sharey=True))
    for axis, servers in zip(panels, (*steady_state.SERVERS, None), strict=True):
        _draw_waits(axis, cells, servers)
    panels[0].legend(fontsize=8, loc="upper left", frameon=False)
    bottom.suptitle("Late share of 15 s intervals (%), default HPA", fontsize=11)
    line, *scatters = list(bottom.subplots(1, 3, width_ratios=(2.2, 1.0, 1.0)))
    default = [c for window in windows for c in window if c.hpa == "default"]
    shown, first = max(
        ((c, i) for c in default if c.load_balancing == "central" for i in range(0, len(c.arrived) - _HOUR, _HOUR // 4)),
        key=lambda at: _unsettled(at[0].simulated[0][at[1] : at[1] + _HOUR]),
    )
    at = slice(first, first + _HOUR)
    minutes = np.arange(_HOUR) * 0.25
    line.fill_between(minutes, 100 * shown.simulated[0][at], step="mid", color="#bbbbbb", label="one simulation")
    line.step(minutes, 100 * shown.sakasegawa[at], where="mid", color=_SAKASEGAWA, linewidth=1.0, label="model")
    line.set_title(f"central, {late_share.TRACE_NAMES[shown.trace]}, an hour of window {shown.window}", fontsize=9)
    line.set_xlabel("minutes", fontsize=9)
    line.legend(fontsize=8, frameon=False)
    for axis, balancing in zip(scatters, late_share.BALANCINGS, strict=True):
        some = [c for c in default if c.load_balancing == balancing]
        simulated = 100 * np.concatenate([c.simulated.mean(axis=0) for c in some])
        model = 100 * np.concatenate([c.sakasegawa for c in some])
        axis.plot([0, 100], [0, 100], color="#999999", linewidth=0.8)
        axis.plot(simulated, model, ".", markersize=2.0, alpha=0.35, color=_SAKASEGAWA, rasterized=True)
        axis.set_title(f"{balancing}, both traces", fontsize=9)
        axis.set_xlabel("mean of 3 simulations", fontsize=9)
        axis.set_ylabel("model", fontsize=9)
        axis.set_aspect("equal")
    for axis in (*panels, line, *scatters):
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def _unsettled(late_share: Array) -> float:
    """Large where many shares are neither 0 nor 1: there the model has something to get wrong."""
    return float((late_share * (1.0 - late_share)).sum())


def _draw_waits(axis: Any, cells: list[Measured], servers: int | None) -> None:
    """One panel: a number of replicas behind a central queue, or None: all numbers of them under random balancing."""
    loads = np.array(steady_state.LOADS)
    balancing: LoadBalancing = "random" if servers is None else "central"
    some = sorted(
        (m for m in cells if m.cell.load_balancing == balancing and servers in (None, m.cell.servers)), key=lambda m: m.cell.load
    )
    # Nobody waits where the 95 % wait is 0: a logarithmic axis leaves those out.
    markers = [(m.cell.load, 1e3 * m.simulated) for m in some if m.simulated > 0]
    fine = np.linspace(loads[0], loads[-1], 200)
    styles: tuple[tuple[steady_state.Model, str, str], ...] = (("sakasegawa", _SAKASEGAWA, "-"), ("erlang_c", _ERLANG, "--"))
    for model, color, style in styles:
        if servers is None and model == "sakasegawa":
            continue
        said = [1e3 * steady_state.model_p95_seconds(Cell(balancing, servers or 1, float(x)), model) for x in fine]
        label = "M/M/1" if servers is None else model
        axis.plot(fine, np.where(np.array(said) > 0, said, np.nan), style, color=color, linewidth=1.3, label=label)
    axis.plot(*zip(*markers, strict=True), "o", color=_SIMULATED, markersize=4, fillstyle="none", label="simulated")
    axis.set_yscale("log")
    axis.set_xlim(0.25, 1.0)
    axis.set_ylim(0.5, 5000)
    axis.set_title(
        "random, 1 to 50 replicas" if servers is None else f"central, {servers} replica{'s' * (servers > 1)}", fontsize=9
    )
    axis.set_xlabel("load", fontsize=9)
    axis.grid(alpha=0.25)
    if servers is None:
        axis.legend(fontsize=8, loc="upper left", frameon=False)
