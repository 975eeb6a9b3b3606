"""Prints what pyproject.toml says the package needs, so that an image can install that before our code.

usage: requirements.py EXTRA... [-PACKAGE...]     with these extras, without these packages
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, words: list[str]) -> list[str]:
    """The package's dependencies and those of some extras, without some packages.

    Raises:
        KeyError: no such extra, or a package that is not among them.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = [word for word in words if not word.startswith("-")]
    found = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    by_name = {re.split(r"[\[<>=]", line)[0]: line for line in found}
    left_out = [by_name[word[1:]] for word in words if word.startswith("-")]
    return [line for line in found if line not in left_out]


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml"), sys.argv[1:])))
