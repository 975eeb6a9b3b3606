"""`scalepilot env list|show`: what there is to scale, and every field an environment shows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scalepilot.cli import output

if TYPE_CHECKING:
    from scalepilot_envs import EnvEntry

HELP = "list environments, or show one with fields, actions, reward and rules"
_DEFAULT_ID = "Autoscale-v0"
_CAUSAL = (
    "On a `workload` of kind `markov` the cost of Autoscale-v0's best causal policy is computed exactly, and `scalepilot compare`"
    " says how far every other is above it: [causal-optimum.md](causal-optimum.md)."
)
_LIVE = (
    "`LiveScaling-v0` is a real deployment in place of Autoscale-v0, ClusterDeployment-v0 or FunctionWorkflow-v0: see"
    " [live-training.md](live-training.md)."
)
_OTHERS = (
    "Whatever gymnasium knows trains, too (`CartPole-v1`, `minigrid:MiniGrid-Empty-5x5-v0`):"
    " [which spaces, action masks and wrappers](learning.md#spaces-masks-and-wrappers)."
)
_DRAWN = (
    "Drawn again for each episode of a training (`env.randomisation`), off in evaluation. What the last ones stand for, and what"
    " they cost a policy that has never met them: [live-effects.md](live-effects.md)."
)
# What shows further fields, and the value at which they are described.
_OPTIONS = {"observe_clock": True, "observe_hour": True, "long_window_steps": 960, "observe_service": True}
_LONG = 1e12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `env`."""
    what = parser.add_subparsers(dest="what", metavar="list|show", required=True)
    listing = what.add_parser("list", help="every environment, in one line each")
    showing = what.add_parser("show", help="fields with unit, bounds and PromQL; actions; reward; parameters with defaults")
    showing.add_argument("id", nargs="?", default=_DEFAULT_ID, metavar="ID", help=f"environment id (default: {_DEFAULT_ID})")
    for command in (listing, showing):
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument("--markdown", action="store_true", help="print Markdown; `list` prints docs/environments.md")


def run(arguments: argparse.Namespace) -> int:
    """List or show."""
    from scalepilot.errors import InputError
    from scalepilot.files.env_modules import find_checked, find_in_current_folder
    from scalepilot_envs import ENVS

    if arguments.what == "list":
        entries = list(ENVS.values())
        if arguments.markdown:
            print(markdown_page([describe(entry) for entry in entries]))
        else:
            _list(entries, as_json=arguments.json)
        return 0
    find_in_current_folder({"id": arguments.id})
    entry = find_checked(arguments.id)
    try:
        description = describe(entry)
    # Whatever an environment of others raises when it is made, such as a package that is not installed.
    except Exception as error:  # noqa: BLE001 - anything may be raised by another's code
        raise InputError(
            f"{entry.env_id}: cannot be made ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        ) from None
    if arguments.json:
        print(json.dumps(description, indent=1, ensure_ascii=False))
    elif arguments.markdown:
        print("\n".join(_markdown(description)))
    else:
        _show(description)
    return 0


def describe(entry: EnvEntry) -> dict[str, Any]:
    """An environment as plain data: spaces, fields, actions, reward, rules and parameters."""
    from dataclasses import asdict, is_dataclass

    from scalepilot.policy.rules import rules_for
    from scalepilot_envs.description import documented

    env = entry.maker()()
    shown = entry.describe()
    fields = [f.to_json() | {"option": None} for f in shown.fields]
    # A field that only an option shows is worth knowing of, too.
    names = {f.name for f in shown.fields}
    for option, value in _OPTIONS.items():
        if hasattr(shown.params, option):
            more = entry.describe({**asdict(shown.params), option: value}).fields
            fields += [f.to_json() | {"option": option} for f in more if f.name not in names]
    meanings = documented(type(shown.params)) if is_dataclass(shown.params) else {}
    # Environments of others have no batch; how long they last is in what they are registered with.
    limit = None if env.spec is None else env.spec.max_episode_steps
    episode_steps = getattr(getattr(env.unwrapped, "batch", None), "episode_steps", limit)
    drawn = getattr(getattr(env.unwrapped, "batch", None), "randomisation", None)
    named: Any = shown.params
    params = asdict(named) if is_dataclass(named) and not isinstance(named, type) else dict(named or {})
    return {
        "id": entry.env_id,
        "summary": entry.summary,
        "observation_space": _space(env.observation_space),
        "action_space": _space(env.action_space),
        "episode_steps": episode_steps,
        "fields": fields,
        "actions": [{"index": i, **asdict(action)} for i, action in enumerate(shown.actions)],
        "components": [{"name": c.name, "unit": c.unit, "low": c.low, "high": c.high} for c in shown.components],
        "reward": shown.reward,
        "end": shown.end,
        "commands_targets": shown.commands_targets,
        "rules": rules_for(shown),
        "params": {name: {"default": value, "description": meanings.get(name, "")} for name, value in params.items()},
        "randomisation": {} if drawn is None else _described(drawn),
    }


def _described(values: Any) -> dict[str, Any]:
    from dataclasses import fields, is_dataclass

    from scalepilot_envs.description import documented

    meanings, described = documented(type(values)), dict[str, Any]()
    for name in (f.name for f in fields(values)):
        value = getattr(values, name)
        if is_dataclass(value):
            described |= {f"{name}.{inner}": told for inner, told in _described(value).items()}
        else:
            described[name] = {"default": value, "description": meanings.get(name, "")}
    return described


def _space(space: Any) -> dict[str, Any]:
    if hasattr(space, "n"):
        return {"type": "Discrete", "n": int(space.n)}
    return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype)}


def _list(entries: list[EnvEntry], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"id": e.env_id, "summary": e.summary} for e in entries], indent=1))
        return
    width = max(len(e.env_id) for e in entries)
    for entry in entries:
        print(f"{entry.env_id:{width}}  {entry.summary}")


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < _LONG else f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_number(item) for item in value) or "none"
    return str(value)


def _space_text(space: dict[str, Any]) -> str:
    if space["type"] == "Discrete":
        return f"Discrete({space['n']})"
    return f"Box({', '.join(str(n) for n in space['shape'])}) {space['dtype']}"


def _spaces_text(description: dict[str, Any]) -> str:
    limit = description["episode_steps"]
    steps = "no limit of steps" if limit is None else f"{limit:,} steps an episode"
    spaces = (
        f"observation {_space_text(description['observation_space'])} · action {_space_text(description['action_space'])}"
        f" · {steps}"
    )
    return spaces + (" · takes targets in replicas, too" if description["commands_targets"] else "")


def _actions_text(description: dict[str, Any]) -> str:
    numbered = [f"{action['index']} {action['label']}" for action in description["actions"]]
    return ", ".join(numbered + [f"{c['name']} {_bounds(c)} {c['unit']}".rstrip() for c in description["components"]])


def _meaning(field: dict[str, Any]) -> str:
    return str(field["description"] + (f" (option {field['option']})" if field["option"] else ""))


def _bounds(field: dict[str, Any]) -> str:
    return f"{_number(field['low'])} to {_number(field['high'])}"


def _show(description: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    console = output.console()
    console.print(f"[bold]{description['id']}[/bold]\n{description['summary']}")
    for line in (
        _spaces_text(description),
        f"actions: {_actions_text(description)}",
        f"reward:  {description['reward']}",
        f"end:     {description['end']}",
        f"rules:   {', '.join(description['rules'])}\n",
    ):
        console.print(line, markup=False)

    table = Table(box=box.SIMPLE_HEAD, title="Observation", title_justify="left", pad_edge=False, padding=(0, 1))
    table.add_column("field", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("bounds", justify="right", no_wrap=True)
    table.add_column("what it is")
    for f in description["fields"]:
        table.add_row(f["name"], f["unit"], _bounds(f), _meaning(f))
    console.print(table)

    table = Table(box=box.SIMPLE_HEAD, title="Parameters (params=…)", title_justify="left", pad_edge=False, padding=(0, 1))
    table.add_column("name", no_wrap=True)
    table.add_column("default", justify="right")
    table.add_column("what it is")
    for name, entry in description["params"].items():
        table.add_row(name, _number(entry["default"]), entry["description"].removesuffix("."))
    if description["params"]:
        console.print(table)

    if any(f["promql"] for f in description["fields"]):
        console.print(
            "[italic]PromQL[/italic]  $selector: labels of the service's own series; $pods: of its pods; $deployment: of its"
        )
        console.print(
            "deployment, each with the namespace; $window: the interval and one scrape; $step: the interval in seconds."
        )
        console.print("scalepilot operate reads raw samples instead, which is exact: docs/operate.md.")
    for f in description["fields"]:
        if f["promql"]:
            console.print(f["name"])
            # One line each, whatever the width: a query is copied, not read.
            console.print(f"    {f['promql']}", markup=False, soft_wrap=True, style="dim")


def markdown_page(descriptions: Sequence[dict[str, Any]]) -> str:
    """docs/environments.md: every environment from the same source as `env show`."""
    lines = [
        "# Environments",
        "",
        "Generated by `scalepilot env list --markdown`; a test holds this page to the code.",
        "",
        "| id | what it is |",
        "|---|---|",
    ]
    for d in descriptions:
        anchor = d["id"].lower().replace("/", "")
        lines.append(f"| [{d['id']}](#{anchor}) | {d['summary']} |")
    for d in descriptions:
        lines += ["", *_markdown(d)]
    lines += ["", "## Traffic whose best policy is known", "", _CAUSAL]
    lines += ["", "## A deployment of your own", "", _LIVE, "", "## Environments of others", "", _OTHERS]
    return "\n".join(lines)


def _markdown(description: dict[str, Any]) -> list[str]:
    lines = [
        f"## {description['id']}",
        "",
        f"{description['summary'][0].upper()}{description['summary'][1:]}.",
        "",
        f"- {_spaces_text(description)}",
        f"- actions: {_actions_text(description)}",
        f"- reward: {description['reward']}",
        f"- end: {description['end']}",
        f"- rules: {', '.join(description['rules'])}",
        "",
        "| field | unit | bounds | what it is |",
        "|---|---|---|---|",
    ]
    for f in description["fields"]:
        lines.append(f"| `{f['name']}` | {f['unit']} | {_bounds(f)} | {_meaning(f).replace('|', '/')} |")
    for kind, key in (("parameter", "params"), ("randomisation", "randomisation")):
        if description[key]:
            lines += [
                "",
                *([_DRAWN, ""] if key == "randomisation" else []),
                f"| {kind} | default | what it is |",
                "|---|---|---|",
            ]
        for name, entry in description[key].items():
            lines.append(
                f"| `{name}` | {_number(entry['default'])} | {entry['description'].removesuffix('.').replace('|', '/')} |"
            )
    return lines
