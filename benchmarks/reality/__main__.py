"""`python -m benchmarks.reality FOLDER`: the simulator and a real cluster side by side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from scalepilot.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Print; 2 where the folder does not hold the study's data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reality", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the study's data, with data/runs.csv in it")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    given = parser.parse_args(arguments)

    from benchmarks.reality import figures, page
    from benchmarks.reality.study import ATTRIBUTION

    try:
        compared = figures.Compared(given.folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps({"source": ATTRIBUTION, **compared.summary()}, indent=1, ensure_ascii=False))
        return 0
    tables = (page.side_by_side(compared), page.parts(compared), page.differences(compared))
    print("\n".join((*tables, ATTRIBUTION)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
