"""`scalepilot env list|show`: what there is to scale, and every field an environment shows."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from scalepilot.cli import output

if TYPE_CHECKING:
    from scalepilot_envs import EnvEntry

HELP = "list environments; show an environment's fields, actions and parameters"
_DEFAULT_ID = "Autoscale-v0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `env`."""
    what = parser.add_subparsers(dest="what", metavar="list|show", required=True)
    listing = what.add_parser("list", help="every environment, in one line each")
    showing = what.add_parser("show", help="fields with unit, bounds and PromQL; actions; parameters with defaults")
    showing.add_argument("id", nargs="?", default=_DEFAULT_ID, metavar="ID", help=f"environment id (default: {_DEFAULT_ID})")
    for command in (listing, showing):
        command.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """List or show."""
    from scalepilot.errors import InputError
    from scalepilot_envs import ENVS, find_env

    if arguments.what == "list":
        _list(list(ENVS.values()), as_json=arguments.json)
        return 0
    try:
        entry = find_env(arguments.id)
    except ValueError as error:
        raise InputError(str(error)) from None
    description = describe(entry)
    if arguments.json:
        print(json.dumps(description, indent=1, ensure_ascii=False))
    else:
        _show(description)
    return 0


def describe(entry: EnvEntry) -> dict[str, Any]:
    """An environment as plain data: spaces, fields, actions and parameters."""
    from dataclasses import asdict, replace

    from scalepilot_envs.autoscale import observation_fields

    env = entry.maker()()
    batch: Any = env.unwrapped.batch  # type: ignore[attr-defined]
    params = batch.params
    shown = [f.name for f in batch.fields]
    fields = [f.to_json() for f in observation_fields(replace(params, observe_clock=True))]
    meanings = documented(type(params))
    return {
        "id": entry.env_id,
        "summary": entry.summary,
        "observation_space": {"type": "Box", "shape": list(env.observation_space.shape or ()), "dtype": "float32"},
        "action_space": {"type": "Discrete", "n": len(batch.move_table)},
        "episode_steps": batch.episode_steps,
        "fields": [f | {"option": None if f["name"] in shown else "observe_clock"} for f in fields],
        "actions": batch.move_table.to_json(),
        "params": {name: {"default": value, "description": meanings.get(name, "")} for name, value in asdict(params).items()},
    }


def documented(kind: type) -> dict[str, str]:
    """Name → sentence, from the `Attributes:` section of a class's docstring."""
    meanings: dict[str, str] = {}
    name = ""
    for line in (kind.__doc__ or "").partition("Attributes:")[2].splitlines():
        text = line.strip()
        if line.startswith(" " * 8) and not line.startswith(" " * 9) and ": " in text:
            name, _, meaning = text.partition(": ")
            meanings[name] = meaning
        elif text and name:
            meanings[name] += f" {text}"
    return meanings


def _list(entries: list[EnvEntry], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"id": e.env_id, "summary": e.summary} for e in entries], indent=1))
        return
    width = max(len(e.env_id) for e in entries)
    for entry in entries:
        print(f"{entry.env_id:{width}}  {entry.summary}")


def _number(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, float) and abs(value) >= 1000 else f"{value:g}"


def _show(description: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    console = output.console()
    console.print(f"[bold]{description['id']}[/bold]\n{description['summary']}")
    shape, actions = description["observation_space"]["shape"][0], description["action_space"]["n"]
    steps = description["episode_steps"]
    console.print(f"observation Box({shape}) float32 · action Discrete({actions}) · {steps} steps an episode")
    moves = ", ".join(action["label"] for action in description["actions"])
    console.print(f"action 0 to {actions - 1}, of ready + starting replicas:  {moves}\n")

    table = Table(box=box.SIMPLE_HEAD, title="Observation", title_justify="left", pad_edge=False, padding=(0, 1))
    table.add_column("field", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("bounds", justify="right", no_wrap=True)
    table.add_column("what it is")
    for f in description["fields"]:
        meaning = f["description"] + (f" (option {f['option']})" if f["option"] else "")
        table.add_row(f["name"], f["unit"], f"{_number(f['low'])} to {_number(f['high'])}", meaning)
    console.print(table)

    table = Table(box=box.SIMPLE_HEAD, title="Parameters (env.params.…)", title_justify="left", pad_edge=False, padding=(0, 1))
    table.add_column("name", no_wrap=True)
    table.add_column("default", justify="right", no_wrap=True)
    table.add_column("what it is")
    for name, entry in description["params"].items():
        default = str(entry["default"]).lower() if isinstance(entry["default"], bool) else _number(entry["default"])
        table.add_row(name, default, entry["description"].removesuffix("."))
    console.print(table)

    console.print("[italic]PromQL[/italic]  ($selector: labels of the service; $workload: its deployment)")
    for f in description["fields"]:
        if f["promql"]:
            console.print(f["name"])
            # One line each, whatever the width: a query is copied, not read.
            console.print(f"    {f['promql']}", markup=False, soft_wrap=True, style="dim")
