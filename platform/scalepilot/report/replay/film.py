"""A replay as pictures of a film: charts that fill for Autoscale, the environments' own pictures beside each other else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot.report.replay.autoscale_replay import AutoscaleReplay
from scalepilot.report.replay.env_replay import EnvReplay
from scalepilot.report.replay.recording import MOST_FRAMES
from scalepilot_envs.drawing import MUTED, SERIES_COLOURS, Canvas, Chart, Series, draw_charts

Picture = NDArray[np.uint8]
_WIDTH, _HEIGHT, _HEADING = 720, 560, 40
_SECONDS = 12.0
_LANE_HEIGHT, _CAPTION, _GAP = 300, 44, 8


def film_frames(replay: AutoscaleReplay | EnvReplay) -> tuple[list[Picture], float]:
    """All pictures, and how many a second."""
    if isinstance(replay, EnvReplay):
        frames = _beside(replay)
    else:
        steps = np.unique(np.linspace(1, replay.step_index, min(MOST_FRAMES, replay.step_index)).astype(int))
        frames = [autoscale_picture(replay, int(step)) for step in steps]
    return frames, max(4.0, len(frames) / _SECONDS)


def autoscale_picture(replay: AutoscaleReplay, step: int) -> Picture:
    """Requests, replicas, late share and cost of up to three lanes after so many steps; the others are left out."""
    lanes = replay.lanes[: len(SERIES_COLOURS)]
    canvas = Canvas(_WIDTH, _HEIGHT)
    hours = step * replay.params.interval_seconds / 3600
    canvas.text((16, 20), replay.title, size=16)
    canvas.text((_WIDTH - 16, 20), f"step {step} of {replay.num_steps} ({hours:.1f} h)", MUTED, align="right")

    def chart(column: str, unit: str, factor: float = 1.0) -> Chart:
        # One axis for the whole film: a scale that grows would make everything else shrink.
        high = max(max(lane.columns[column]) for lane in lanes) * factor
        return Chart(
            [Series(lane.name[:24], np.array(lane.columns[column][:step]) * factor) for lane in lanes], unit, high=_round_up(high)
        )

    rates = replay.rates_rps
    requests = Chart([Series("requests", rates[:step])], "a second", high=_round_up(max(rates)))
    charts = [requests, chart("replicas", "replicas"), chart("late_share", "% late", 100.0), chart("cost", "cost so far")]
    draw_charts(canvas, charts, num_steps=replay.num_steps, top=_HEADING)
    return canvas.array()


def _round_up(high: float) -> float:
    """A readable end of an axis."""
    if high <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(high))
    return float(next(power * m for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if high <= power * m * (1 + 1e-9)))


def _beside(replay: EnvReplay) -> list[Picture]:
    films = []
    for at, step in enumerate(replay.frame_steps):
        tiles = []
        for lane, frames in zip(replay.lanes, replay.frames, strict=True):
            steps_shown = min(step, len(lane.decisions))
            collected = lane.columns["return"][steps_shown - 1] if steps_shown else 0.0
            action = lane.decisions[steps_shown - 1] if steps_shown else ""
            tiles.append(_tile(frames[at], lane.name, f"return {collected:,.4g}", action))
        gap = np.full((tiles[0].shape[0], _GAP, 3), 255, dtype=np.uint8)
        films.append(np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1))
    return films


def _tile(frame: Picture, name: str, figure: str, action: str) -> Picture:
    """A lane's picture under its caption."""
    from PIL import Image

    height, width = frame.shape[:2]
    wide = round(width * _LANE_HEIGHT / height)
    picture = np.asarray(Image.fromarray(frame).resize((wide, _LANE_HEIGHT), Image.Resampling.BILINEAR), dtype=np.uint8)
    caption = Canvas(wide, _CAPTION)
    caption.text((4, 14), name[: wide // 8], size=14)
    caption.text((4, 33), action[: wide // 16], MUTED)
    caption.text((wide - 4, 33), figure, MUTED, align="right")
    return np.concatenate([caption.array(), picture])
