"""Frames as one small animated GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_WIDTH = 480
_COLOURS = 64
# Frames that the palette is made from.
_SAMPLED = 6
# The end stays for a moment before it begins again.
_LAST_SECONDS = 1.0


def gif(frames: Sequence[NDArray[np.uint8]], frames_per_second: float) -> bytes:
    """An endless GIF, at most 480 pixels wide, in few colours.

    Args:
        frames: (height, width, 3) each, at least one.
        frames_per_second: how fast.
    """
    from PIL import Image

    height, width = frames[0].shape[:2]
    scale = min(1.0, MAX_WIDTH / width)
    size = (round(width * scale), round(height * scale))
    pictures = [
        Image.fromarray(frame).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST) for frame in frames
    ]
    # One palette for all: palettes of their own flicker.
    sample = Image.new("RGB", (size[0], size[1] * _SAMPLED))
    for i, at in enumerate(np.linspace(0, len(pictures) - 1, _SAMPLED).astype(int)):
        sample.paste(pictures[at], (0, i * size[1]))
    palette = sample.quantize(_COLOURS)
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [round(1000 / frames_per_second)] * len(others) + [round(1000 * _LAST_SECONDS)]
    data = io.BytesIO()
    first.save(data, format="GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=True)
    return data.getvalue()
