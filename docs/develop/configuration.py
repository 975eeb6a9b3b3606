"""Writes docs/configuration.md from the configuration's own classes: `make docs`."""

from __future__ import annotations

from scalepilot.config import json_schema
from scalepilot.config.schema import reference
from scalepilot.experiments.study.config import json_schema as study_schema
from scalepilot.experiments.sweep.config import json_schema as sweep_schema
from scalepilot.operate.config import json_schema as operate_schema
from scalepilot.operate.telemetry.settings import json_schema as prometheus_schema


def page() -> str:
    """The whole page."""
    return reference(
        {
            "The experiment": json_schema(),
            "The sweep": sweep_schema(),
            "The study": study_schema(),
            "Operating": operate_schema(),
            "Telemetry of kind prometheus": prometheus_schema(),
        }
    )


if __name__ == "__main__":
    print(page(), end="")
