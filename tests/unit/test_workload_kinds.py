"""The kinds of workload: known answers, and the properties that hold whatever the parameters."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot_envs.workloads import (
    WORKLOADS,
    Component,
    Cycle,
    DiurnalWorkload,
    LoadEvent,
    MixtureWorkload,
    Phase,
    PhasesWorkload,
    PoissonWorkload,
    RandomWalkWorkload,
    RandomWorkload,
    SineCurveWorkload,
    SinusoidalWorkload,
    SpikeWorkload,
    SteadyWorkload,
    reseeded,
    workload_from_mapping,
)

# The first thirty of each pattern of the public gym-scaling environment.
FIRST_REQUESTS = {
    "sine_curve": "2175 2197 2219 2241 2262 2284 2306 2328 2349 2371 2393 2414 2436 2457 2479"
    " 2501 2522 2543 2565 2586 2608 2629 2650 2671 2693 2714 2735 2756 2777 2797",
    "sinusoidal": "2425 2445 2464 2483 2502 2522 2541 2560 2579 2599 2618 2637 2656 2675 2694"
    " 2713 2732 2751 2770 2789 2808 2827 2846 2864 2883 2902 2920 2939 2957 2976",
    "steady": " ".join(["2425"] * 30),
    "spike": "1655 1847 2040 2232 2425 2617 2810 3002 3195 3387 3580 3387 3195 3002 2810"
    " 2617 2425 2232 2040 1847 1655 1655 1655 1655 1655 1655 1655 1655 1655 1655",
}
SYNTHETIC = [kind for kind in WORKLOADS if kind != "trace"]
DRAWN = [kind for kind in SYNTHETIC if "seed" in {f.name for f in fields(WORKLOADS[kind])}]


def requests(workload):
    series = workload.series()
    return np.rint(series.rates_rps * series.interval_seconds).astype(int)


def test_the_library_holds_every_kind_it_promises():
    promised = "steady sine_curve sinusoidal spike poisson random random_walk markov phases diurnal trace drawn mixture pool"
    assert list(WORKLOADS) == promised.split()
    assert DRAWN == ["poisson", "random", "random_walk", "markov", "diurnal", "drawn", "mixture"]


@pytest.mark.parametrize("kind", FIRST_REQUESTS)
def test_the_patterns_begin_as_those_of_the_source(kind):
    assert requests(WORKLOADS[kind]())[:30].tolist() == [int(n) for n in FIRST_REQUESTS[kind].split()]


@pytest.mark.parametrize("kind", FIRST_REQUESTS)
def test_the_patterns_are_the_references_request_for_request(golden, kind):
    reference = golden("queue_scaling")
    drawn = requests(WORKLOADS[kind]())
    assert drawn.tolist() == [reference.influx_of(kind.upper(), step) for step in range(len(drawn))]
    np.testing.assert_array_equal(WORKLOADS[kind]().request_counts(), drawn)


@pytest.mark.parametrize("kind", SYNTHETIC)
def test_a_kind_says_the_same_twice_and_nobody_can_change_its_rates(kind):
    workload = WORKLOADS[kind]()
    assert workload.kind == kind
    rates = workload.series().rates_rps
    np.testing.assert_array_equal(rates, workload.series().rates_rps)
    with pytest.raises(ValueError, match="read-only"):
        rates[0] = 1.0
    assert workload_from_mapping(asdict(workload)) == workload


@pytest.mark.parametrize("kind", [kind for kind in SYNTHETIC if kind != "pool"])
def test_every_kind_scales_to_a_peak(kind):
    assert np.quantile(WORKLOADS[kind](peak_rps=500.0).series().rates_rps, 0.995) == pytest.approx(500)


@pytest.mark.parametrize("kind", DRAWN)
def test_another_seed_is_another_episode(kind):
    workload = WORKLOADS[kind]()
    first, second = (reseeded(workload, seed).series().rates_rps for seed in (5, 6))
    shorter = min(len(first), len(second))
    # A chain of few levels is often at the same one.
    assert (first[:shorter] != second[:shorter]).mean() > (0.3 if kind == "markov" else 0.9)
    np.testing.assert_array_equal(first, replace(workload, seed=5).series().rates_rps)


def test_what_draws_nothing_cannot_be_drawn_anew():
    with pytest.raises(ValueError, match="a workload of kind spike draws nothing"):
        reseeded(SpikeWorkload(), 1)


def test_poisson_counts_have_their_mean_and_variance_and_keep_to_the_range():
    counts = PoissonWorkload(num_steps=100_000).request_counts()
    assert counts.mean() == pytest.approx(2425, rel=1e-3)
    assert counts.var() == pytest.approx(2425, rel=0.03)
    narrow = PoissonWorkload(offset_requests=2400, max_requests=2450).request_counts()
    assert (narrow.min(), narrow.max()) == (2400, 2450)


def test_random_counts_are_uniform_and_independent():
    counts = RandomWorkload(num_steps=200_000, offset_requests=3, max_requests=12).request_counts()
    shares = np.bincount(counts, minlength=13)[3:] / len(counts)
    np.testing.assert_allclose(shares, 0.1, atol=0.004)
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 0.01


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(0, 500),
    span=st.integers(1, 500),
    largest=st.integers(1, 1500),
    start=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_walk_never_leaves_its_range_nor_takes_a_step_too_long(low, span, largest, start, seed):
    walk = RandomWalkWorkload(
        max_requests=low + span, offset_requests=low, largest_step_requests=largest, start_share=start, seed=seed, num_steps=500
    ).request_counts()
    assert walk[0] == low + int(start * span)
    assert walk.min() >= low
    assert walk.max() <= low + span
    assert np.abs(np.diff(walk)).max() <= largest


def test_a_walk_spends_as_much_time_everywhere():
    walk = RandomWalkWorkload(
        num_steps=400_000, largest_step_requests=1000, max_requests=1999, offset_requests=0
    ).request_counts()
    shares = np.histogram(walk, 10, (0, 2000))[0] / len(walk)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)


def test_a_range_of_one_number_is_steady():
    for kind in ("steady", "sinusoidal", "spike", "poisson", "random", "random_walk"):
        assert set(WORKLOADS[kind](offset_requests=7, max_requests=7).request_counts()) == {7}


def test_overlapping_cycles_add_up_and_stay_within_the_range():
    day, week = Cycle(period_steps=288, share=3), Cycle(period_steps=2016, share=1, phase_share=0.25)
    both = SinusoidalWorkload(cycles=(day, week)).request_counts()
    steps = np.arange(len(both))
    wave = 0.75 * np.sin(2 * np.pi * steps / 288) + 0.25 * np.cos(2 * np.pi * steps / 2016)
    np.testing.assert_allclose(both, 500 + 3850 * (wave + 1) / 2, atol=1.001)
    assert both.min() >= 500
    assert both.max() <= 4350


def test_a_spike_rises_and_falls_where_it_is_told_to():
    workload = SpikeWorkload(
        max_requests=100, offset_requests=0, base_share=0.1, peak_share=1, spike_every_steps=8, rise_steps=3, fall_steps=2
    )
    assert workload.request_counts()[:9].tolist() == [10, 40, 70, 100, 55, 10, 10, 10, 10]


def test_the_phases_are_the_references_at_every_moment(golden):
    reference = golden("function_workflow")
    seconds = np.linspace(0, 300, 30_001)
    rates = PhasesWorkload().rate_at(seconds)
    np.testing.assert_array_equal(rates, [reference.rate_per_second(float(s)) for s in seconds])


def test_phases_follow_each_other_and_end():
    workload = PhasesWorkload()
    rates = workload.series().rates_rps
    assert len(rates) == 240
    np.testing.assert_allclose([rates[0], rates[60], rates[120], rates[135], rates[165]], [1.5, 7.5, 5, 7.5, 2.5])
    assert workload.rate_at(np.array([-1.0, 240.0, 1e9])).tolist() == [0, 0, 0]


def test_an_order_replaces_the_workloads_own_and_rounds_repeat_it():
    workload = PhasesWorkload(phases=(Phase("steady", 1, 1, seconds=10), Phase("steady", 2, 2, seconds=5)), rounds=2)
    moments = np.array([[0.0, 9.9], [10.0, 16.0]])
    np.testing.assert_allclose(workload.rate_at(moments), [[5, 5], [10, 5]])
    np.testing.assert_allclose(workload.rate_at(moments, order=[1, 0]), [[10, 5], [5, 0]])
    assert (workload.duration_seconds, workload.num_steps) == (30, 30)
    with pytest.raises(ValueError, match=r"order: \[2\] is not allowed; allowed: a list of indices from 0 to 1"):
        workload.rate_at(moments, order=[2])


def test_a_shuffle_keeps_every_phase_and_another_seed_is_another_order():
    orders = [PhasesWorkload(shuffle_seed=seed, rounds=6).order() for seed in (0, 1)]
    for order in orders:
        assert (np.sort(order.reshape(6, 4), axis=1) == np.arange(4)).all()
    assert (orders[0] != orders[1]).any()
    assert len({tuple(one_round) for one_round in orders[0].reshape(6, 4)}) > 1
    assert PhasesWorkload().order().tolist() == [0, 1, 2, 3]


def test_without_oscillation_the_phases_are_flat_at_their_middle():
    rates = PhasesWorkload(oscillation=False).series().rates_rps
    np.testing.assert_allclose(rates, np.repeat([1.5, 7.5, 5, 5], 60))


def test_a_mixture_is_the_weighted_sum_on_the_finest_grid_as_long_as_the_shortest():
    coarse = SteadyWorkload(max_requests=600, offset_requests=600, num_steps=11, interval_seconds=60)
    fine = SineCurveWorkload(num_steps=30, interval_seconds=15)
    mixture = MixtureWorkload(components=(Component(2, coarse), Component(0.5, fine)))
    series = mixture.series()
    assert (len(series), series.interval_seconds) == (30, 15)
    np.testing.assert_allclose(series.rates_rps, 2 * 10 + 0.5 * fine.series().rates_rps)


def test_a_seed_draws_each_component_of_a_mixture_anew():
    same = RandomWorkload(seed=3)
    plain, drawn = (MixtureWorkload(components=(Component(1, same), Component(1, same)), seed=s) for s in (None, 0))
    assert plain.seeded() == (same, same)
    assert len({workload.seed for workload in drawn.seeded()} | {3}) == 3
    assert MixtureWorkload(components=(Component(1, SteadyWorkload()),), seed=0).seeded() == (SteadyWorkload(),)


def test_a_component_that_cannot_be_read_is_named_by_its_place(tmp_path):
    parts = [{"workload": {"kind": "steady"}}, {"workload": {"kind": "trace", "path": str(tmp_path / "absent.csv")}}]
    with pytest.raises(ValueError, match=r"workload.components.1: .*absent.csv: no such file"):
        workload_from_mapping({"kind": "mixture", "components": parts}).series()


CALM = DiurnalWorkload(days=8, noise_sigma=0, flash_crowd_every_hours=0)


def test_weekends_are_saturday_and_sunday():
    factor = replace(CALM, weekend_factor=0.5).series().rates_rps / CALM.series().rates_rps
    # The series begins on Thursday, 1970-01-01.
    assert [factor[1440 * day] for day in range(8)] == [1, 1, 0.5, 0.5, 1, 1, 1, 1]
    assert set(factor) == {0.5, 1}


def test_events_multiply_the_rate_while_they_last():
    events = (LoadEvent(start_hours=1, hours=2, factor=3), LoadEvent(start_hours=2, hours=0.5, factor=0))
    factor = replace(CALM, events=events).series().rates_rps / CALM.series().rates_rps
    expected = np.ones(8 * 1440)
    expected[60:180] = 3
    expected[120:150] = 0
    np.testing.assert_allclose(factor, expected)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"kind": "spike", "num_steps": 1}, "workload.num_steps: 1 is not allowed; allowed: integers from 2 to 20000000"),
        ({"kind": "spike", "num_steps": 2.5}, "workload.num_steps: 2.5 is not allowed; allowed: integers"),
        ({"kind": "spike", "num_steps": True}, "workload.num_steps: True is not allowed"),
        ({"kind": "spike", "interval_seconds": "15"}, "workload.interval_seconds: '15' is not allowed; allowed: above 0"),
        ({"kind": "spike", "peak_share": 0.1}, "workload.peak_share: 0.1 is not allowed; allowed: from 0.3 to 1"),
        ({"kind": "spike", "spike_every_steps": 19}, "workload.spike_every_steps: 19 is not allowed; allowed: integers from 20"),
        (
            {"kind": "steady", "offset_requests": 9999},
            "workload.offset_requests: 9999 is not allowed; allowed: integers from 0 to",
        ),
        ({"kind": "random", "seed": -1}, "workload.seed: -1 is not allowed"),
        ({"kind": "sine_curve", "perod_steps": 3}, "workload.perod_steps: unknown key; allowed: kind, "),
        ({"kind": "sinusoidal", "cycles": []}, "workload.cycles: 0 cycles are not allowed; allowed: 1 to 100"),
        ({"kind": "sinusoidal", "cycles": 7}, "workload.cycles: 7 is not allowed; allowed: a list"),
        ({"kind": "sinusoidal", "cycles": [7]}, "workload.cycles.0: 7 is not allowed; allowed: keys and values (period_steps"),
        ({"kind": "sinusoidal", "cycles": [{}, {"share": 0}]}, "workload.cycles.1.share: 0 is not allowed; allowed: above 0"),
        ({"kind": "phases", "phases": [{"kind": "stedy"}]}, "workload.phases.0.kind: 'stedy' is not allowed; allowed: steady, "),
        ({"kind": "phases", "phases": [{"low": 0.5}]}, "workload.phases.0.high: 1.0 is not allowed; allowed: from 0.5 to 0.5"),
        (
            {"kind": "phases", "phases": [{"kind": "oscillation"}]},
            "workload.phases.0.cycles: 0.0 is not allowed; allowed: above 0",
        ),
        ({"kind": "phases", "interval_seconds": 300}, "workload.interval_seconds: 300 makes 1 steps of 240 s; allowed: 2 to"),
        ({"kind": "phases", "oscillation": "no"}, "workload.oscillation: 'no' is not allowed; allowed: true, false"),
        ({"kind": "diurnal", "events": [{"hours": 0}]}, "workload.events.0.hours: 0 is not allowed; allowed: above 0"),
        ({"kind": "diurnal", "weekend_factor": -1}, "workload.weekend_factor: -1 is not allowed"),
        ({"kind": "mixture", "components": []}, "workload.components: 0 components are not allowed"),
        ({"kind": "mixture", "components": [{"weight": 0}]}, "workload.components.0.weight: 0 is not allowed; allowed: above 0"),
        (
            {"kind": "mixture", "components": [{"workload": {"kind": "mixture"}}]},
            "workload.components.0.workload.kind: 'mixture' is not allowed; allowed: steady, ",
        ),
        (
            {"kind": "mixture", "components": [{}, {"workload": {"kind": "diurnal", "day": 3}}]},
            "workload.components.1.workload.day: unknown key; allowed: kind, days",
        ),
        ({"kind": "mixture", "components": [{"workload": 7}]}, "workload.components.0.workload.kind: 7 is not allowed"),
    ],
)
def test_an_unfit_description_is_refused_by_its_place(description, message):
    with pytest.raises(ValueError) as caught:
        workload_from_mapping(description)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_every_key_of_every_kind_is_described_in_its_docstring():
    for section in (*WORKLOADS.values(), Component, Cycle, LoadEvent, Phase):
        for f in fields(section):
            assert f.name == "kind" or f"{f.name}:" in section.__doc__, f"{section.__name__}.{f.name}"
