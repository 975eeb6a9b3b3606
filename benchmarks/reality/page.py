"""Writes the generated sections of docs/reality.md, and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency_model.page import with_section
from benchmarks.reality.figures import BEFORE, DIFFERENCES, NOW, Compared
from benchmarks.reality.replay import VARIANTS
from benchmarks.reality.study import CONDITIONS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PICTURE = DOCS / "reality.md", DOCS / "images" / "reality.png"
_CLUSTER, _BEFORE, _NOW = "#222222", "#c1440e", "#1f6f8b"
_SHOWN = {"spike: 10 s late": (55, 85), "spike: missed": (55, 110), "spike: missed, reactive": (55, 85)}


def write(compared: Compared, page: Path = PAGE, picture: Path = PICTURE) -> None:
    """Replace the page's tables and draw its picture."""
    text = page.read_text(encoding="utf-8")
    for name, table in (("side_by_side", side_by_side), ("parts", parts), ("differences", differences)):
        text = with_section(text, name, table(compared))
    draw(compared, picture)
    page.write_text(text, encoding="utf-8")


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def side_by_side(compared: Compared) -> str:
    """Every condition: the cluster's mean (least to most of its runs), the simulator before and now (start-up of 1 to 3 s)."""
    head = ("condition", "runs", "replica-seconds: cluster", "simulator")
    for figure in ("seconds over the SLO", "p99 ms", "failed"):
        head += (f"{figure}: cluster", "before", "now")
    rows = []
    for i, condition in enumerate(CONDITIONS):
        recorded = compared.study.recorded[i]
        row = [condition.label, str(len(recorded.p99_ms)), f"{recorded.replica_seconds.mean():,.0f}"]
        row.append(f"{compared.replays[NOW][i].replica_seconds:,.0f}")
        for figure, unit in (("late_seconds", 1.0), ("p99_ms", 1.0), ("failed", 100.0 / compared.requests[i])):
            of_runs = getattr(recorded, figure) * unit
            show = {"late_seconds": _seconds, "p99_ms": _whole, "failed": _percent}[figure]
            row.append(_between(show, of_runs.mean(), of_runs.min(), of_runs.max()))
            row.append(show(compared.simulated(BEFORE, figure)[i] * unit))
            least, most = compared.range(i, figure)
            row.append(_between(show, compared.simulated(NOW, figure)[i] * unit, least * unit, most * unit))
        rows.append(row)
    return _table(head, rows)


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    return _whole(value) if float(value).is_integer() else f"{value:.1f}"


def _percent(value: float) -> str:
    return "0" if value == 0 else f"{value:.1f} %"


def _between(show: Any, mean: float, least: float, most: float) -> str:
    low, high = show(least), show(most)
    return show(mean) if low == high else f"{show(mean)} ({low.removesuffix(' %')}–{high})"


def parts(compared: Compared) -> str:
    """How far each variant is off, on average over the conditions."""
    errors = compared.errors()
    rows = [
        [f"+ {name}" if i else name, f"{e['late_seconds']:.1f}", f"{e['p99_ms']:,.0f}", f"{e['failed']:.0f}"]
        for i, (name, e) in enumerate((name, errors[name]) for name in VARIANTS)
    ]
    return _table(("simulator", "seconds over the SLO", "p99 ms", "failed requests"), rows)


def differences(compared: Compared) -> str:
    """What the study concludes from, in the cluster and in the simulator."""
    rows = []
    for more, less in DIFFERENCES:
        row = [f"{more} less {less}"]
        for figure, unit in (("late_seconds", " s"), ("p99_ms", " ms")):
            row += [f"{compared.difference(more, less, figure, v):+,.0f}{unit}" for v in (None, BEFORE, NOW)]
        rows.append(row)
    return _table(("conditions", "over the SLO: cluster", "before", "now", "p99: cluster", "before", "now"), rows)


def draw(compared: Compared, picture: Path) -> None:
    """By second: 99 % latency, failed requests and ready pods, of the complete timelines that hold an overload."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(3, len(_SHOWN), sharex="col", sharey="row", height_ratios=(2.2, 1.0, 0.8))
    for column, (label, (begin, end)) in enumerate(_SHOWN.items()):
        index = [c.label for c in CONDITIONS].index(label)
        timeline = compared.study.timelines[CONDITIONS[index].run_id]
        before, now = compared.replays[BEFORE][index], compared.replays[NOW][index]
        seconds = np.arange(begin, end)
        latency, failed, ready = axes[:, column]
        latency.plot(seconds, before.p99_ms_by_second[begin:end], color=_BEFORE, linewidth=1.2, linestyle="--")
        latency.plot(seconds, timeline.p99_ms[begin:end], color=_CLUSTER, linewidth=1.4, marker="o", markersize=2.5)
        latency.plot(seconds, now.p99_ms_by_second[begin:end], color=_NOW, linewidth=1.6, marker="o", markersize=2.5)
        latency.axhline(300, color="#888888", linewidth=0.8, linestyle=":")
        latency.text(end - 1, 320, "SLO", color="#666666", fontsize=8, ha="right", va="bottom")
        latency.set_yscale("log")
        latency.set_yticks([10, 100, 1000, 10_000], ["10 ms", "100 ms", "1 s", "10 s"])
        latency.set_ylim(10, 20_000)
        latency.set_title(label, fontsize=10)
        failed.step(seconds, before.failed_by_second[begin:end], where="mid", color=_BEFORE, linewidth=1.2, linestyle="--")
        failed.step(seconds, timeline.failed[begin:end], where="mid", color=_CLUSTER, linewidth=1.4)
        failed.step(seconds, now.failed_by_second[begin:end], where="mid", color=_NOW, linewidth=1.6)
        ready.step(seconds, timeline.ready[begin:end], where="mid", color=_CLUSTER, linewidth=1.4)
        ready.step(seconds, now.ready_by_second[begin:end], where="mid", color=_NOW, linewidth=1.6)
        ready.set_ylim(-0.3, 4.5)
        ready.set_xlabel("second of the run", fontsize=9)
    for axis, text in zip(axes[:, 0], ("p99 latency of a second", "failed requests/s", "ready pods"), strict=True):
        axis.set_ylabel(text, fontsize=9)
    labels = (("cluster (one run)", _CLUSTER, "-"), ("simulator before", _BEFORE, "--"), ("simulator now", _NOW, "-"))
    handles = [axes[0, 0].plot([], [], color=color, linestyle=style, label=name)[0] for name, color, style in labels]
    axes[0, 0].legend(handles=handles, fontsize=8, frameon=False, loc="upper right")
    for axis in axes.ravel():
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110, metadata={"Software": None})
