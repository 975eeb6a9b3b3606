"""What to deploy, in a sentence or two."""

from __future__ import annotations

from scalepilot.evaluate.recommendation import MARGIN, Origin, Recommendation
from scalepilot.report.words.figures import amount, shown, signed

_WHO: dict[Origin, str] = {"trained": "the trained policy", "init": "the policy that training began with"}
# A share that nobody would act on.
_SAME = 0.005
_ELSEWHERE = {"training": "on the training windows", "busier": "where traffic is busier than recorded"}


def reason(found: Recommendation) -> str:
    """Such as "Deploy: kpa-tuned. It costs 14.20 an hour on validation, 4.0 % less than the trained policy (95 % …)."."""
    objective, means = found.objective, found.means["validation"]
    own, show = means[found.name], shown(objective).show
    text = f"Deploy: {_named(found)}. It {amount(objective, own)} on validation"
    if found.versus is None:
        return f"{text}; there was nothing else to choose from."
    other, theirs, interval = _called(found, found.versus), means[found.versus], found.differences[found.versus]
    text += f", {_compared(own, theirs, other)}"
    if interval.is_known:
        text += f" (95 % interval of the difference {signed(interval.low, show)} to {signed(interval.high, show)})."
    else:
        text += "; the validation windows are of a single day, which cannot tell that from chance."
    if own > theirs * (1 + _SAME / 10):
        text += f" {_why_not(found, other)}"
    return text


def _why_not(found: Recommendation, other: str) -> str:
    """What speaks against a candidate that is better on validation."""
    assert found.versus is not None
    for name, where in _ELSEWHERE.items():
        means = found.means.get(name)
        if means is not None and means[found.versus] > means[found.name] * (1 + _SAME):
            return f"But {other} costs {_share(means[found.versus], means[found.name])} {where}."
    if found.origin == "rule" and found.origins[found.versus] != "rule":
        return f"A policy takes the place of a rule only where it is more than {100 * MARGIN:g} % better."
    return f"But {other} is not better over all sets of episodes."


def _compared(own: float, theirs: float, other: str) -> str:
    return f"as much as {other}" if abs(own - theirs) <= _SAME / 10 * abs(theirs) else f"{_share(own, theirs)} than {other}"


def _share(own: float, theirs: float) -> str:
    word = "less" if own < theirs else "more"
    return f"{100 * abs(own / theirs - 1):.1f} % {word}" if theirs > 0 else f"{abs(own - theirs):.2f} {word}"


def _named(found: Recommendation) -> str:
    """The candidate's name, and what it is where the name alone does not say it."""
    who = _WHO.get(found.origin)
    return found.name if who is None else f"{who} ({found.name})"


def _called(found: Recommendation, name: str) -> str:
    return _WHO.get(found.origins[name], name)
