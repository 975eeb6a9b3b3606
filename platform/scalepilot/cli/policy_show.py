"""What `scalepilot policy show` prints of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from scalepilot.cli import output
from scalepilot.errors import printable
from scalepilot.policy import PolicySpec
from scalepilot.report.policy_list import figures
from scalepilot.report.words.tables import plain_table


def print_policy(folder: Path, spec: PolicySpec, evaluation: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Print it.

    Args:
        folder: where it lies.
        spec: its description.
        evaluation: as `policy_list.stored_evaluation` gives it.
        sizes: file → bytes, of everything beside policy.json.
    """
    console = output.console()
    facts = _facts(spec) | {f"file {name}": f"{size:,} bytes, sha256 {spec.files[name]}" for name, size in sizes.items()}
    width = max(map(len, facts))
    for line in (
        f"{spec.name}@{spec.version}  {folder}",
        f"{spec.kind} for {spec.env_id}, decides by {spec.decision_rule}",
        *(f"{label:<{width}}  {text}" for label, text in facts.items()),
    ):
        console.print(printable(line), markup=False, soft_wrap=True)

    fields = plain_table(f"\n{len(spec.observation_fields)} observation fields", "")
    for heading in ("field", "unit"):
        fields.add_column(heading, no_wrap=True)
    fields.add_column("range", no_wrap=True, justify="right")
    fields.add_column("what it is")
    for f in spec.observation_fields:
        bounds = f"{_bound(f.low)} to {_bound(f.high)}" + (f", {'×'.join(map(str, f.shape))}" if f.shape else "")
        fields.add_row(*(Text(printable(text)) for text in (f.name, f.unit, bounds, f.description)))
    console.print(fields)
    _print_evaluation(spec.name, evaluation)


def _facts(spec: PolicySpec) -> dict[str, str]:
    """What a person wants to know beside fields and evaluation: label → text."""
    facts = {}
    if spec.rule:
        facts["rule"] = str(spec.rule.get("name"))
        parameters = spec.rule.get("parameters")
        facts |= {f"  {key}": str(value) for key, value in parameters.items()} if isinstance(parameters, dict) else {}
    if spec.actions:
        facts["actions"] = ", ".join(f"{action.index} {action.label}" for action in spec.actions)
    for c in spec.components:
        facts[f"action {c.name}"] = f"{_bound(c.low)} to {_bound(c.high)} {c.unit}"
    for key, value in spec.provenance.items():
        # The whole configuration is for --json, and a rule's parameters are said already.
        if key not in ("config", "parameters"):
            shown = ", ".join(f"{name} {of}" for name, of in value.items()) if isinstance(value, dict) else str(value)
            facts[key.replace("_", " ")] = shown
    facts["signature"] = "ed25519; check it with verify-signature" if spec.signature else "none"
    return facts


def _print_evaluation(name: str, evaluation: Mapping[str, Any]) -> None:
    console = output.console()
    own = figures(evaluation, name)
    if not own:
        console.print("\nnot evaluated")
        return
    workloads = evaluation.get("workloads")
    where = ", ".join(map(str, workloads)) if isinstance(workloads, list) else ""
    title = f"Evaluation, {evaluation.get('episodes', '?')} episodes" + (f" of {where}" if where else "")
    console.print()
    console.print(printable(title), markup=False, soft_wrap=True, style="bold")
    table = plain_table("", "low and high: 95 % interval")
    table.add_column("metric", no_wrap=True)
    for heading in ("mean", "low", "high"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric, figure in own.items():
        table.add_row(Text(printable(metric)), *(_number(figure.get(key)) for key in ("mean", "low", "high")))
    console.print(table)
    judged = "J" if "J" in own else "return"
    means = {other: figures(evaluation, other).get(judged, {}).get("mean") for other in evaluation["policies"] if other != name}
    others = ", ".join(f"{other} {_number(mean)}" for other, mean in means.items() if mean is not None)
    if others:
        console.print(printable(f"{judged} of others: {others}"), markup=False, soft_wrap=True)


def _bound(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _number(value: Any) -> str:
    return f"{value:.4g}".replace("-", "−") if isinstance(value, int | float) else "-"
