"""Pictures of environments: what the canvas draws, how charts are laid out, and what the history remembers."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from scalepilot_envs.drawing import (
    BACKGROUND,
    BAND,
    BLUE,
    GREEN,
    GRID,
    ORANGE,
    SERIES_COLOURS,
    VERMILION,
    Canvas,
    Chart,
    History,
    Series,
    draw_charts,
)


def near(picture, colour):
    """Edges are softened, so a thin line is of nearly its colour."""
    return (np.abs(picture.astype(int) - colour) <= 60).all(axis=2)


def share_of(picture, colour):
    return (picture == np.array(colour, dtype=np.uint8)).all(axis=2).mean()


def columns_with(picture, colour):
    return np.flatnonzero(near(picture, colour).any(axis=0))


def test_a_new_canvas_is_all_background_and_of_the_size_asked_for():
    picture = Canvas(120, 80).array()
    assert picture.shape == (80, 120, 3)
    assert picture.dtype == np.uint8
    assert share_of(picture, BACKGROUND) == 1.0


def test_a_bar_fills_its_box_and_nothing_else():
    canvas = Canvas(100, 100)
    canvas.bar((10, 20, 60, 70), BLUE)
    picture = canvas.array()
    assert share_of(picture, BLUE) == pytest.approx(0.25, abs=0.02)
    assert (picture[45, 30] == BLUE).all()
    assert (picture[45, 80] == BACKGROUND).all()


@pytest.mark.parametrize(("share", "filled"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (7.0, 1.0), (-1.0, 0.0)])
def test_a_gauge_is_filled_by_its_share_and_never_leaves_its_box(share, filled):
    canvas = Canvas(100, 100)
    canvas.level((0, 0, 100, 100), share, ORANGE)
    assert share_of(canvas.array(), ORANGE) == pytest.approx(filled, abs=0.02)
    assert share_of(canvas.array(), GRID) == pytest.approx(1 - filled, abs=0.02)


def test_a_line_of_one_point_is_a_dot_and_of_none_is_nothing():
    canvas = Canvas(50, 50)
    canvas.line([], BLUE)
    assert share_of(canvas.array(), BACKGROUND) == 1.0
    canvas.line([(25, 25)], BLUE)
    assert (canvas.array()[25, 25] == BLUE).all()


@pytest.mark.parametrize(("align", "at"), [("left", 10), ("centre", 150), ("right", 290)])
def test_text_ends_where_it_is_aligned(align, at):
    canvas = Canvas(300, 40)
    width = canvas.text((at, 20), "instances 42", align=align)
    inked = np.flatnonzero((canvas.array() != BACKGROUND).any(axis=(0, 2)))
    left = {"left": at, "centre": at - width / 2, "right": at - width}[align]
    assert 50 < width < 150
    assert inked.min() == pytest.approx(left, abs=3)
    assert inked.max() == pytest.approx(left + width, abs=3)


def test_signs_the_font_lacks_are_written_with_those_it_has():
    pictures = []
    for text in ("−1 → 30–70", "-1 -> 30-70"):
        canvas = Canvas(200, 40)
        canvas.text((5, 20), text)
        pictures.append(canvas.array())
    np.testing.assert_array_equal(*pictures)


def test_charts_draw_every_series_its_band_and_stay_inside_the_picture():
    canvas = Canvas()
    series = [Series(f"s{i}", np.linspace(0, 90, 50) / (i + 1)) for i in range(3)]
    draw_charts(canvas, [Chart(series, "%", high=100, band=(30, 70))], num_steps=100)
    picture = canvas.array()
    assert all(near(picture, colour).mean() > 1e-3 for colour in SERIES_COLOURS)
    assert share_of(picture, BAND) > 0.1
    # Half of the steps: half of the width.
    assert columns_with(picture, GREEN).max() <= 640 - 10
    assert columns_with(picture, BLUE).max() == pytest.approx(54 + 0.49 * (640 - 16 - 54), abs=5)


def test_a_history_that_begins_late_is_drawn_at_its_steps():
    canvas = Canvas()
    draw_charts(canvas, [Chart([Series("", np.full(11, 5.0)), Series("x", [5.0])], "", high=10)], num_steps=100, step=90)
    columns = columns_with(canvas.array()[100:], BLUE)
    assert columns.min() == pytest.approx(54 + 0.8 * 570, abs=5)


def test_values_beyond_the_axis_are_drawn_at_its_end():
    canvas = Canvas()
    draw_charts(canvas, [Chart([Series("x", [-50.0, 500.0])], "", high=100)], num_steps=1)
    rows = np.flatnonzero(near(canvas.array(), BLUE).any(axis=1))
    assert rows.min() >= 40
    assert rows.max() <= 360


def test_several_charts_share_the_height():
    canvas = Canvas()
    draw_charts(canvas, [Chart([Series(str(i), [1.0, 2.0])], "") for i in range(4)], num_steps=1)
    picture = canvas.array()
    for i in range(4):
        rows = slice(int(40 + i * 81.5) + 18, int(40 + (i + 1) * 81.5) - 12)
        assert near(picture[rows], BLUE).any()
    assert not near(picture, VERMILION).any()


@pytest.mark.parametrize("count", [0, 4])
def test_a_chart_holds_one_to_three_series(count):
    with pytest.raises(ValueError, match=rf"^series: {count} are not allowed; allowed: 1 to 3"):
        Chart([Series("x", [1.0])] * count, "%")


def test_charts_without_values_or_of_zeros_can_be_drawn():
    canvas = Canvas()
    draw_charts(canvas, [Chart([Series("none", [])], "%"), Chart([Series("zero", [0.0, 0.0])], "%")], num_steps=10)
    assert share_of(canvas.array(), BACKGROUND) < 1.0


def test_a_missing_pillow_is_named_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        Canvas()


def columns_of(step, num_envs=3):
    return np.arange(num_envs) + 10.0 * step, np.full(num_envs, float(step))


def test_one_environment_is_remembered_from_its_start():
    history = History(1)
    assert history
    for step in range(3):
        history.add(*columns_of(step, 1))
    np.testing.assert_array_equal(history.of(0, *columns_of(2, 1)), [[0, 10, 20], [0, 1, 2]])


def test_an_environment_of_a_larger_batch_is_remembered_from_its_first_picture_on():
    history = History(3)
    assert not history
    history.add(*columns_of(0))
    np.testing.assert_array_equal(history.of(2, *columns_of(1)), [[12], [1]])
    history.add(*columns_of(2))
    np.testing.assert_array_equal(history.of(2, *columns_of(2)), [[12, 22], [1, 2]])


def test_a_reset_forgets_the_episode_of_those_it_names():
    history = History(3)
    for index in (0, 1):
        history.of(index, *columns_of(0))
    mask = np.array([True, False, False])
    history.clear(mask)
    history.add(*columns_of(5), mask=mask)
    np.testing.assert_array_equal(history.of(0, *columns_of(5)), [[50], [5]])
    np.testing.assert_array_equal(history.of(1, *columns_of(5)), [[1], [0]])
    history.clear(None)
    np.testing.assert_array_equal(history.of(1, *columns_of(6)), [[61], [6]])
