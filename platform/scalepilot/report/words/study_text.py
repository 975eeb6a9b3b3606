"""A study's analysis in words, each sentence chosen by what the numbers say.

Two arms are told apart only where the 95 % interval of their difference leaves out 0; otherwise the text says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.evaluate.study_metrics import Arm, TaskResult

Side = Literal["first", "second", "neither", "unknown"]
# A difference smaller than this share of the leader's return makes none in practice.
_EQUIVALENT_SHARE = 0.05
# Against more rivals than this the leader is held in one sentence.
_MOST_PAIRS = 3
# Shares of actions that differ by less look alike; one action above the other share is nearly all a policy does.
_ALIKE_SHARE, _NEARLY_ALWAYS = 0.1, 0.9
# Seeds whose returns spread by more of their mean are called different policies.
_SPREAD_SHARE = 0.1
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Paragraph:
    """A heading and what there is to say."""

    heading: str
    text: str


def side(difference: Interval) -> Side:
    """Which of two has more; neither where 0 is in the interval, unknown where there is none."""
    if not difference.is_known:
        return "unknown"
    return "first" if difference.low > 0 else "second" if difference.high < 0 else "neither"


def learns(arm: Arm, task: TaskResult) -> bool | None:
    """Whether an arm ends above the random agent; None where it cannot be told."""
    if not (arm.mean.is_known and task.random.is_known):
        return None
    if arm.mean.low > task.random.high:
        return True
    return False if arm.mean.high < task.random.high else None


def analysis(task: TaskResult) -> list[Paragraph]:
    """Everything there is to say of a task, one paragraph a question."""
    paragraphs = [
        Paragraph("Does it learn?", _learning(task)),
        Paragraph("Final performance", _final(task)),
        Paragraph("Sample efficiency", _efficiency(task)),
        Paragraph("Stability", _stability(task)),
    ]
    if task.success_return is not None:
        paragraphs.insert(2, Paragraph("Success rate", _success(task)))
    if task.actions:
        paragraphs.append(Paragraph("What the policies do", _actions(task)))
    return [*paragraphs, Paragraph("In short", verdict(task))]


def verdict(task: TaskResult) -> str:
    """One or two sentences: whom to take on this task, or why nobody can say."""
    leader, *rivals = task.arms
    if not any(learns(arm, task) for arm in task.arms):
        if len(leader.runs) < 2:
            return f"On {task.name} one seed an arm decides nothing: run more."
        told = any(learns(arm, task) is None for arm in task.arms)
        able = "can be told from a random agent" if told else "ends better than a random agent"
        unable = "cannot be told from a random agent" if told else "ends no better than a random agent"
        found = f"{leader.name} {unable}" if not rivals else f"{_none_of(task.arms)} {able}"
        return f"On {task.name} {found}: give it more steps or other settings."
    if not rivals:
        return f"On {task.name} {leader.name} collects {_value(leader.mean)}; there is nothing to compare it with."
    sides = {rival.name: side(task.versus[rival.name].final) for rival in rivals}
    beaten = [rival for rival in rivals if sides[rival.name] == "first"]
    tied = [rival for rival in rivals if sides[rival.name] != "first"]
    if len(rivals) > _MOST_PAIRS and tied:
        return f"On {task.name} {leader.name} leads, and cannot be told apart from {len(tied)} of the other {len(rivals)} arms."
    if not tied:
        others = _names(beaten) if len(beaten) <= _MOST_PAIRS else f"all {len(beaten)} others"
        return f"On {task.name} take {leader.name}: it ends higher than {others}.{_reservation(task, leader, beaten)}"
    names = _names([leader, *tied])
    return f"On {task.name} {names} cannot be told apart by what they collect in the end.{_tie_break(task, leader, tied)}"


def conclusion(tasks: Sequence[TaskResult]) -> str:
    """What several tasks say together; empty for a single one."""
    if len(tasks) < 2:
        return ""
    winners = {task.name: winner(task) for task in tasks}
    named = {name for name in winners.values() if name is not None}
    undecided = [task for task, name in winners.items() if name is None]
    if not named:
        return f"No arm wins on any of the {_number(len(tasks))} tasks: the choice is open, and more seeds would narrow it down."
    if len(named) == 1 and not undecided:
        return f"{named.pop()} wins on {_all_of(len(tasks))}."
    wins = "; ".join(f"{name} on {_join([t for t, n in winners.items() if n == name])}" for name in sorted(named))
    rest = f"; nobody on {_join(undecided)}" if undecided else ""
    head = "Which is better depends on the environment" if len(named) > 1 else "One arm wins, but not everywhere"
    return f"{head}: {wins}{rest}."


def winner(task: TaskResult) -> str | None:
    """The arm that learns and ends higher than every other; None where there is none."""
    leader, *rivals = task.arms
    clear = all(side(task.versus[rival.name].final) == "first" for rival in rivals)
    return leader.name if rivals and clear and learns(leader, task) else None


def _learning(task: TaskResult) -> str:
    states = {arm.name: learns(arm, task) for arm in task.arms}
    random = f"a random agent collects {_value(task.random)}"
    if len(task.arms[0].runs) < 2:
        figures = _join([f"{arm.name} {_number_of(arm.mean.mean)}" for arm in task.arms])
        return f"One seed says nothing of the next, so there are no intervals: {figures} an episode; {random}."
    sentences = []
    learnt, unknown, failed = ([a for a in task.arms if states[a.name] is state] for state in (True, None, False))
    if learnt:
        every = "" if len(learnt) == len(task.arms) > 1 else "of these only " if len(task.arms) > 2 else ""
        figures = _join([f"{arm.name} collects {_value(arm.mean)}" for arm in learnt])
        sentences.append(f"{every}{_names(learnt)} {_verb(learnt, 'learns', 'learn')}: {random}, {figures}.")
    for arm in unknown:
        sentences.append(f"{arm.name} cannot be told from a random agent: it collects {_value(arm.mean)}, {random}.")
    for arm in failed:
        sentences.append(f"{arm.name} never learns: it collects {_value(arm.mean)}, {random}.")
    return " ".join(_capital(sentence) for sentence in sentences)


def _final(task: TaskResult) -> str:
    leader, *rivals = task.arms
    seeds, episodes = leader.values.shape
    sentences = [
        f"Over {seeds} {_plural(seeds, 'seed')} × {episodes} test episodes the interquartile mean is "
        + _join([f"{_value(arm.iqm)} for {arm.name}" for arm in task.arms])
        + "."
    ]
    if len(rivals) > _MOST_PAIRS:
        return " ".join([*sentences, _grouped(task)])
    for rival in rivals:
        sentences.append(_difference_sentence(leader, rival, task.versus[rival.name].final))
    return " ".join(sentences)


def _grouped(task: TaskResult) -> str:
    """The leader against many, in one sentence."""
    leader, *rivals = task.arms
    beaten = [rival for rival in rivals if side(task.versus[rival.name].final) == "first"]
    others = [rival for rival in rivals if rival not in beaten]
    if not others:
        return f"{leader.name} ends higher than every other arm."
    if not beaten:
        return f"{leader.name} cannot be told apart from any other arm."
    return f"{leader.name} ends higher than {_names(beaten)}, and cannot be told apart from {_names(others)}."


def _difference_sentence(leader: Arm, rival: Arm, difference: Interval) -> str:
    figure = f"{_signed(difference.mean)}, {_span(difference, signed=True)}"
    match side(difference):
        case "first":
            share = difference.mean / abs(rival.mean.mean) if rival.mean.mean else math.nan
            relative = f" ({share:.0%} more)" if rival.mean.mean > 0 else ""
            return f"{leader.name} ends higher than {rival.name}: the difference of the means is {figure}{relative}."
        case "second":
            return (
                f"By the mean {rival.name} ends higher than {leader.name} (difference {figure}), though not by the"
                " interquartile mean: a few episodes decide."
            )
        case "unknown":
            return f"{leader.name} has {_number_of(difference.mean)} more than {rival.name}; one seed cannot say whether by luck."
    limit = _EQUIVALENT_SHARE * abs(leader.mean.mean)
    tied = f"{leader.name} and {rival.name} cannot be told apart: the difference of the means is {figure}, which includes 0"
    if -limit <= difference.low and difference.high <= limit:
        return f"{tied} and rules out more than {_EQUIVALENT_SHARE:.0%} either way."
    return f"{tied}; more seeds would be needed."


def _success(task: TaskResult) -> str:
    assert task.success_return is not None
    threshold = f"{task.success_return:g}"
    rates = {arm.name: arm.success_rate for arm in task.arms if arm.success_rate is not None}
    if not any(rate.mean for rate in rates.values()):
        return f"Within this budget no arm collects {threshold} in any test episode."
    shares = _join([f"{name} in {_percent_value(rate)}" for name, rate in rates.items()])
    sentence = f"A test episode succeeds with a return of at least {threshold}: {shares} of them"
    if task.random_success_rate:
        sentence += f"; a random agent in {task.random_success_rate:.1%}"
    leader, *rivals = sorted(task.arms, key=lambda arm: -(arm.success_rate.mean if arm.success_rate else 0.0))
    overlapping = [r for r in rivals if leader.success_rate and r.success_rate and _overlap(leader.success_rate, r.success_rate)]
    if overlapping:
        return f"{sentence}. The intervals of {_names([leader, *overlapping])} overlap."
    return f"{sentence}." + (f" {leader.name} succeeds most often, and its interval overlaps no other." if rivals else "")


def _efficiency(task: TaskResult) -> str:
    sentences = []
    if task.success_return is not None:
        for arm in task.arms:
            reached, seeds = sum(s is not None for s in arm.steps_to_success), len(arm.runs)
            median = arm.median_steps_to_success
            if not reached:
                sentences.append(
                    f"{arm.name}'s validation never reaches {task.success_return:g} in {arm.budget_env_steps:,} steps."
                )
            elif median is None:
                sentences.append(f"{arm.name}'s validation reaches {task.success_return:g} with {reached} of {seeds} seeds only.")
            else:
                sentences.append(
                    f"{arm.name}'s validation reaches {task.success_return:g} with {reached} of {seeds} seeds, in the median"
                    f" after {median:,.0f} steps."
                )
    figures = _join([f"{_value(arm.area)} for {arm.name}" for arm in task.arms])
    sentences.append(f"Averaged over the training (the area under the curve), the validation return is {figures}.")
    leader, *rivals = task.arms
    for rival in rivals[:_MOST_PAIRS]:
        sentences.append(_compared(leader, rival, task.versus[rival.name].area, "learns faster", "how fast they learn"))
    return " ".join(sentences)


def _stability(task: TaskResult) -> str:
    figures = _join([f"{arm.name} by {_value(arm.largest_fall)}" for arm in task.arms])
    sentences = [f"From its best validation so far a run falls, at worst and on average over seeds: {figures}."]
    leader, *rivals = task.arms
    for rival in rivals[:_MOST_PAIRS]:
        sentences.append(
            _compared(rival, leader, _negated(task.versus[rival.name].largest_fall), "falls further", "how far they fall")
        )
    late = _join([f"{arm.name} {_number_of(arm.late_deviation.mean)}" for arm in task.arms])
    sentences.append(f"In the last quarter validations vary within a run by (standard deviation) {late}.")
    for arm in task.arms:
        if math.isfinite(arm.seed_deviation) and arm.mean.mean:
            share = arm.seed_deviation / abs(arm.mean.mean)
            if share > _SPREAD_SHARE:
                low, high = min(r.test_return.mean() for r in arm.runs), max(r.test_return.mean() for r in arm.runs)
                sentences.append(
                    f"What {arm.name} ends with depends on the seed: {_number_of(low)} to {_number_of(high)},"
                    f" a standard deviation of {share:.0%} of the mean."
                )
    return " ".join(sentences)


def _compared(first: Arm, second: Arm, difference: Interval, does: str, what: str) -> str:
    """Of a quantity of which one has more; the difference is first − second."""
    figure = f"{_signed(difference.mean)}, {_span(difference, signed=True)}"
    match side(difference):
        case "first":
            return f"{first.name} {does} than {second.name} ({figure})."
        case "second":
            negated = _negated(difference)
            return f"{second.name} {does} than {first.name} ({_signed(negated.mean)}, {_span(negated, signed=True)})."
        case "unknown":
            return f"One seed cannot say who {does}."
    return f"{first.name} and {second.name} cannot be told apart in {what} ({figure})."


def _actions(task: TaskResult) -> str:
    sentences = []
    for arm in task.arms:
        shares = sorted(zip(arm.action_share, task.actions, strict=True), reverse=True)
        most, label = shares[0]
        if most >= _NEARLY_ALWAYS:
            sentences.append(f"{arm.name} nearly always chooses {label} ({most:.0%}).")
        else:
            sentences.append(f"{arm.name} chooses {_join([f'{name} in {share:.0%}' for share, name in shares[:4]])}.")
    leader, *rivals = task.arms
    for rival in rivals[:_MOST_PAIRS]:
        gaps = [abs(a - b) for a, b in zip(leader.action_share, rival.action_share, strict=True)]
        largest = max(gaps)
        label = task.actions[gaps.index(largest)]
        points = "1 percentage point" if largest < 0.015 else f"{100 * largest:.0f} percentage points"
        if largest < _ALIKE_SHARE:
            sentences.append(f"{leader.name} and {rival.name} use their actions alike: no share differs by more than {points}.")
        else:
            sentences.append(f"{leader.name} and {rival.name} differ most in {label}: by {points}.")
    return " ".join(sentences)


def _reservation(task: TaskResult, leader: Arm, beaten: Sequence[Arm]) -> str:
    """What speaks for the beaten ones."""
    steadier = [arm.name for arm in beaten if side(task.versus[arm.name].largest_fall) == "first"]
    quicker = [arm.name for arm in beaten if side(task.versus[arm.name].area) == "second"]
    words = [f"{_join(steadier[:_MOST_PAIRS])} fell less on the way"] if steadier else []
    words += [f"{_join(quicker[:_MOST_PAIRS])} learnt faster at first"] if quicker else []
    return f" Against it: {' and '.join(words)}." if words else ""


def _tie_break(task: TaskResult, leader: Arm, tied: Sequence[Arm]) -> str:
    """Among those that end alike: who is quicker, who is steadier."""
    words = []
    for rival in tied:
        versus = task.versus[rival.name]
        quicker = {"first": leader.name, "second": rival.name}.get(side(versus.area))
        steadier = {"first": rival.name, "second": leader.name}.get(side(versus.largest_fall))
        if quicker:
            words.append(f"{quicker} learns faster" + ("" if len(tied) == 1 else f" ({leader.name} against {rival.name})"))
        if steadier:
            words.append(f"{steadier} is steadier" + ("" if len(tied) == 1 else f" ({leader.name} against {rival.name})"))
    if words:
        return " " + _capital(_join(words)) + "."
    return " Nothing else measured here separates them either: take the one that is simpler to run."


def _overlap(first: Interval, second: Interval) -> bool:
    return not (first.is_known and second.is_known) or (first.low <= second.high and second.low <= first.high)


def _negated(interval: Interval) -> Interval:
    return Interval(-interval.mean, -interval.high, -interval.low)


def _value(interval: Interval) -> str:
    return f"{_number_of(interval.mean)} ({_span(interval)})" if interval.is_known else _number_of(interval.mean)


def _percent_value(rate: Interval) -> str:
    if rate.mean in (0.0, 1.0):
        return "all" if rate.mean else "none"
    span = f" ({rate.low:.0%} to {rate.high:.0%})" if rate.is_known else ""
    return f"{rate.mean:.0%}{span}"


def _span(interval: Interval, *, signed: bool = False) -> str:
    if not interval.is_known:
        return "interval unknown"
    show = _signed if signed else _number_of
    return f"{show(interval.low)} to {show(interval.high)}"


def _number_of(value: float) -> str:
    digits = 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}".replace("-", "−")


def _signed(value: float) -> str:
    return ("" if value < 0 else "+") + _number_of(value)


def _names(arms: Sequence[Arm]) -> str:
    return _join([arm.name for arm in arms])


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _none_of(arms: Sequence[Arm]) -> str:
    return f"neither {arms[0].name} nor {arms[1].name}" if len(arms) == 2 else "no arm"


def _all_of(count: int) -> str:
    return "both tasks" if count == 2 else f"all {_number(count)} tasks"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _verb(subjects: Sequence[Arm], one: str, many: str) -> str:
    return one if len(subjects) == 1 else many


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
