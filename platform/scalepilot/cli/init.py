"""`scalepilot init [NAME]`: a commented configuration to begin with."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from scalepilot.errors import InputError

HELP = "write a commented configuration to start from, with its JSON Schema for your editor"
_STARTERS = Path(__file__).with_name("starters")
KINDS = ("traffic", "environment", "gymnasium", "sweep", "operate")
_NEXT = {"sweep": "tune {}", "operate": "operate --config {} --check"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `init`."""
    parser.add_argument("name", nargs="?", default="experiment", metavar="NAME", help="of the experiment and its file")
    about = "your own traffic (default), an environment of your own, one that gymnasium knows, a sweep, or a live deployment"
    parser.add_argument("--for", dest="kind", choices=KINDS, default="traffic", help=about)


def run(arguments: argparse.Namespace) -> int:
    """Write the files; 0."""
    name, kind = arguments.name, arguments.kind
    if not _NAME.fullmatch(name):
        raise InputError(f"NAME: {name!r} is not allowed; allowed: letters, digits and _, up to 63, not a digit first")
    files = _files(name, kind)
    for path in files:
        if path.exists():
            raise InputError(f"{path}: exists already; allowed: another NAME, or another folder")
    for path, text in files.items():
        # Exclusive: what somebody else has just written is not lost.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        print(f"wrote:  {path}")
    print(f"next:   scalepilot {_NEXT.get(kind, 'train {}').format(f'{name}.yaml')}")
    return 0


def _files(name: str, kind: str) -> dict[Path, str]:
    """Path → what stands in it."""
    if kind == "sweep":
        from scalepilot.experiments.sweep.config import json_schema
    elif kind == "operate":
        from scalepilot.operate.config import json_schema
    else:
        from scalepilot.config import json_schema
    schema = f"{name}.schema.json"
    text = (_STARTERS / f"{kind}.yaml").read_text(encoding="utf-8").replace("NAME", name)
    files = {
        Path(f"{name}.yaml"): f"# yaml-language-server: $schema={schema}\n{text}",
        Path(schema): json.dumps(json_schema(), indent=1) + "\n",
    }
    if kind == "environment":
        files[Path(f"{name}_env.py")] = (_STARTERS / "environment.py.in").read_text(encoding="utf-8").replace("NAME", name)
    return files
