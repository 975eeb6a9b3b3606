"""Frames as one small animated GIF, or as MP4."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError

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


def check_mp4() -> None:
    """Refuse before anything is run.

    Raises:
        InputError: the encoder is missing; the message says how to install it.
    """
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise InputError("--mp4: needs imageio-ffmpeg: pip install 'scalepilot[video]'")


def mp4(frames: Sequence[NDArray[np.uint8]], frames_per_second: float, path: Path) -> None:
    """An H.264 video in its full size; an older one is replaced in one step.

    Args:
        frames: (height, width, 3) each, at least one.
        frames_per_second: how fast.
        path: to write.

    Raises:
        InputError: the encoder is missing, or cannot write there.
    """
    check_mp4()
    from imageio_ffmpeg import write_frames

    # H.264 wants even numbers of pixels.
    height, width = (n - n % 2 for n in frames[0].shape[:2])
    held = [*frames, *[frames[-1]] * round(_LAST_SECONDS * frames_per_second)]
    aside = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        writer = write_frames(str(aside), (width, height), fps=frames_per_second, macro_block_size=2, quality=7)
        writer.send(None)
        for frame in held:
            writer.send(np.ascontiguousarray(frame[:height, :width]))
        writer.close()
        aside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        aside.unlink(missing_ok=True)
