"""`python -m benchmarks [NAME…]`: run all or the named, print, and write benchmarks/results/NAME.json."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import BENCHMARKS

HERE = Path(__file__).resolve().parent
PACKAGES = ("scalepilot", "numpy", "gymnasium", "onnxruntime", "torch", "ray", "stable-baselines3")


def main() -> int:
    """Run and write; 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the JSON files")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"{unknown[0]} is not allowed; allowed: {', '.join(BENCHMARKS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or BENCHMARKS:
        print(f"{name} …", flush=True)
        figures, ratios = importlib.import_module(BENCHMARKS[name]).run()
        result = {"name": name, **surroundings(), "figures": figures, "ratios": ratios}
        text = json.dumps(result, indent=1, allow_nan=False)
        print(text)
        (arguments.out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return 0


def surroundings() -> dict[str, Any]:
    """What a number depends on beside the code."""
    return {"git_sha": git_sha(), "hardware": hardware(), "versions": versions()}


def git_sha() -> str:
    """The commit, with "-dirty" where files differ from it; "unknown" outside a clone."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def hardware() -> dict[str, Any]:
    """Processor, cores and memory."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """Python and what is installed of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
