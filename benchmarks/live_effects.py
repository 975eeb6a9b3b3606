"""What it costs a policy that a live service is not like the one it was made for, one effect at a time: docs/live-effects.md.

On days drawn from the demo's test week, the same days and arrivals for all: the HPA as Kubernetes has it, the best that the
demo's search found, and the networks of that page that have been trained here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
DAYS, STEPS = 16, 5760
NETWORKS = ("demo", "demo-lag", "demo-live")
# Ranges of one value.
EFFECTS: dict[str, dict[str, tuple[float, float]]] = {
    "none": {},
    "actuation_lag_steps_1": {"actuation_lag_steps": (1, 1)},
    "actuation_lag_steps_2": {"actuation_lag_steps": (2, 2)},
    "measurement_phase_0.5": {"measurement_phase": (0.5, 0.5)},
    "field_dropout_0.05": {"field_dropout": (0.05, 0.05)},
    "rate_dropout_0.05": {"rate_dropout": (0.05, 0.05)},
    "stuck_share_0.02": {"stuck_share": (0.02, 0.02)},
}
EFFECTS["all_with_lag_1"] = {
    name: value for effect, ranges in EFFECTS.items() if effect != "actuation_lag_steps_2" for name, value in ranges.items()
}
TUNED = "hpa:metric=rps,target=0.375,stabilisation_down_seconds=15,stabilisation_up_seconds=60,policies_down=100%/15"


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """J an hour under each effect, and how many times that without any."""
    from scalepilot.config import load_config
    from scalepilot.policy import load_policy
    from scalepilot.policy.rules.command_line import rule_from_text

    config = load_config(ROOT / "tune_configs" / "demo.yaml")
    policies: dict[str, Any] = {
        "hpa_default": rule_from_text("hpa", config.env.description),
        "hpa_tuned": rule_from_text(TUNED, config.env.description),
    }
    for run in NETWORKS:
        for folder in sorted((ROOT / "runs" / run).glob("*/policy"))[-1:]:
            policies[run.replace("-", "_")] = load_policy(folder)
    figures: dict[str, Any] = {"days": DAYS}
    ratios = {}
    for name, policy in policies.items():
        for effect, randomisation in EFFECTS.items():
            j_per_hour, late_share, replicas = _run(policy, config, randomisation)
            figures[f"{name}_{effect}"] = {
                "J_per_hour": round(j_per_hour, 2),
                "late_share": round(late_share, 5),
                "replicas": round(replicas, 2),
            }
            if randomisation:
                undisturbed = figures[f"{name}_none"]["J_per_hour"]
                ratios[f"{name}_{effect}_vs_none"] = round(j_per_hour / undisturbed, 3)
    return figures, ratios


def _run(policy: Any, config: Any, randomisation: dict[str, tuple[float, float]]) -> tuple[float, float, float]:
    """J an hour, share of late requests and mean replicas over drawn days of the test part."""
    from scalepilot_envs.autoscale import AutoscaleBatch

    batch = AutoscaleBatch(
        DAYS, workload=config.workload, part="test", params=config.env.params, randomisation=randomisation, episode_steps=STEPS
    )
    batch.seed_streams(list(range(DAYS)))
    observation, state = batch.reset_batch(), None
    sums = np.zeros(4)
    for _ in range(STEPS):
        decision, state = policy.act(observation, state)
        step = batch.step_targets(decision.desired_replicas)
        observation = step.observation
        names = ("J", "late_requests", "arrived_requests", "billed_replicas")
        sums += [step.info[name].sum() for name in names]
    cost, late, arrived, billed = sums
    return float(cost / (DAYS * STEPS) * config.env.params.steps_per_hour), float(late / arrived), float(billed / (DAYS * STEPS))
