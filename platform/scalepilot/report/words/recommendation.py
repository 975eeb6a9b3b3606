"""What to deploy, in a sentence or two."""

from __future__ import annotations

from scalepilot.evaluate.recommendation import Origin, Recommendation
from scalepilot.report.words.figures import amount, shown, signed

_WHO: dict[Origin, str] = {"trained": "the trained policy", "init": "the policy that training began with"}


def reason(found: Recommendation) -> str:
    """Such as "Deploy: kpa-tuned. It costs 14.20 an hour on validation, 4.0 % less than the trained policy (95 % …)."."""
    objective, own = found.objective, found.validation[found.name]
    text = f"Deploy: {_named(found, found.name)}. It {amount(objective, own)} on validation"
    if found.versus is None:
        return f"{text}; there was nothing else to choose from."
    theirs, interval = found.validation[found.versus], found.differences[found.versus]
    show = shown(objective).show
    if objective.lower_is_better and theirs > 0:
        share = f"{abs(own / theirs - 1):.1%}".replace("%", " %")
    else:
        share = show(abs(own - theirs))
    text += f", {share} {'less' if own <= theirs else 'more'} than {_called(found, found.versus)}"
    if not interval.is_known:
        return f"{text}; a single day cannot tell that from chance."
    text += f" (95 % interval of the difference {signed(interval.low, show)} to {signed(interval.high, show)})"
    return f"{text}."


def _named(found: Recommendation, name: str) -> str:
    """The candidate's name, and what it is where the name alone does not say it."""
    who = _WHO.get(found.origins[name])
    return name if who is None else f"{who} ({name})"


def _called(found: Recommendation, name: str) -> str:
    return _WHO.get(found.origins[name], name)
