"""A replay as one self-contained page with a scrubber: no network, one script, allowed by its hash."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from scalepilot.report.html.page import TEMPLATES, content_hash
from scalepilot.report.replay.autoscale_replay import AutoscaleReplay, Lane
from scalepilot.report.replay.env_replay import EnvReplay
from scalepilot.report.replay.recording import MOST_FRAMES

# More points than pixels say nothing more.
_MOST_POINTS = 480
_PICTURE_WIDTH = 400
_COLOURS = 64
_LANES = 5


def replay_page(replay: AutoscaleReplay | EnvReplay) -> str:
    """The page as text."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined)
    style, script = ((TEMPLATES / f"replay.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    shown = _env_data(replay) if isinstance(replay, EnvReplay) else _autoscale_data(replay)
    text = json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(sign, escaped)
    policy = f"style-src '{content_hash(style)}'; script-src '{content_hash(script)}'"
    return environment.get_template("replay.html.j2").render(
        title=replay.title,
        subtitle=f"{' · '.join(lane.name for lane in replay.lanes)}, {replay.step_index} steps, the same for all",
        csp=f"default-src 'none'; img-src data:; {policy}; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 - our own files, and JSON whose brackets are escaped
        script=Markup(script),  # noqa: S704
        data=Markup(text),  # noqa: S704
        headings=shown["headings"],
        last=len(shown["steps"]) - 1,
    )


def _autoscale_data(replay: AutoscaleReplay) -> dict[str, Any]:
    at = np.unique(np.linspace(0, replay.step_index - 1, min(_MOST_POINTS, replay.step_index)).astype(int))
    hours = (at + 1) * replay.params.interval_seconds / 3600

    def chart(title: str, column: str, height: int, factor: float = 1.0) -> dict[str, Any]:
        lines = [
            {"style": f"lane-{i % _LANES}", "values": _rounded(np.array(lane.columns[column])[at] * factor)}
            for i, lane in enumerate(replay.lanes)
        ]
        return {"title": title, "height": height, "high": _highest(lines), "lines": lines}

    requests = [{"style": "requests", "values": _rounded(np.array(replay.rates_rps)[at])}]
    lanes = []
    for lane in replay.lanes:
        columns = {name: np.array(values)[at] for name, values in lane.columns.items()}
        cells = [
            [f"{v:.0f}" for v in columns["replicas"]],
            [f"{v:.2%}" for v in columns["late_share"]],
            [f"{v:.2f}" for v in columns["cost"]],
            [f"{v:.2f}" for v in columns["cost"] / hours],
        ]
        lanes.append({"name": lane.name, "cells": cells, "reasons": _told(lane, at)})
    return {
        "headings": ["", "replicas", "late", "cost so far", "J/h so far", "decision and why"],
        "steps": (at + 1).tolist(),
        "clock": [f"{_clock(h)} · {replay.rates_rps[i]:,.0f} requests/s" for h, i in zip(hours, at, strict=True)],
        "interval_milliseconds": 50,
        "charts": [
            {"title": "requests a second", "height": 110, "high": _highest(requests), "lines": requests},
            chart("replicas", "replicas", 190),
            chart("late requests, %", "late_share", 120, 100.0),
            chart("cost so far", "cost", 130),
        ],
        "lanes": lanes,
    }


def _env_data(replay: EnvReplay) -> dict[str, Any]:
    steps = np.array(replay.frame_steps)
    every = -(-len(steps) // MOST_FRAMES)
    shown = np.arange(0, len(steps), every)
    lanes = []
    for lane, frames in zip(replay.lanes, replay.frames, strict=True):
        steps_shown = np.minimum(steps[shown], len(lane.decisions))
        collected = np.concatenate([[0.0], lane.columns["return"]])[steps_shown]
        lanes.append(
            {
                "name": lane.name,
                "cells": [[f"{v:,.4g}" for v in collected]],
                "reasons": _told(lane, steps_shown - 1),
                "pictures": [_png(frames[k]) for k in shown],
            }
        )
    return {
        "headings": ["", "return so far", "decision and why"],
        "steps": steps[shown].tolist(),
        "clock": [f"step {step}" for step in steps[shown]],
        "interval_milliseconds": 80,
        "charts": [],
        "lanes": lanes,
    }


def _told(lane: Lane, at: NDArray[np.int64]) -> list[str]:
    texts = []
    for i in at:
        why = f" ({lane.reasons[i]})" if i >= 0 and lane.reasons[i] else ""
        texts.append(f"{lane.decisions[i]}{why}" if i >= 0 else "")
    return texts


def _clock(hours: float) -> str:
    """Time since the beginning, such as 1:59:45."""
    seconds = round(3600 * hours)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{v:.4g}") for v in values]


def _highest(lines: list[dict[str, Any]]) -> float:
    return max((max(line["values"]) for line in lines), default=0.0) or 1.0


def _png(frame: NDArray[np.uint8]) -> str:
    from PIL import Image

    height, width = frame.shape[:2]
    scale = min(1.0, _PICTURE_WIDTH / width)
    size = (round(width * scale), round(height * scale))
    data = io.BytesIO()
    picture = Image.fromarray(frame).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(data, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
