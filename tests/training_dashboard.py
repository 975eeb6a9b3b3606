"""Where the dashboard and the alerts of training stand, and a row with every metric they may ask for."""

from __future__ import annotations

from scalepilot.runs.metrics import TABLE

DASHBOARD = "cluster/grafana/training.json"
RULES = "cluster/prometheus/training-rules.yaml"
SCRAPE = "cluster/prometheus/training-scrape.yaml"
KUBERNETES_SCRAPE = "cluster/prometheus/kubernetes-scrape.yaml"
# What Ray itself counts of a machine's GPUs: without one there are no such series.
GPU_SERIES = {"ray_node_gpus_utilization", "ray_node_gram_used", "ray_node_gram_available"}


def on_ray() -> list[str]:
    """Documented metrics of the algorithms that train on Ray."""
    tabular = {"q_learning", "sarsa"}
    return [metric.name for metric in TABLE if not set(metric.algorithms.split(", ")) <= tabular]


def full_row(iteration: int) -> dict[str, float]:
    """Every documented metric, measured, with a fault of every kind."""
    return dict.fromkeys((metric.name for metric in TABLE), 0.5) | {
        "iteration": iteration,
        "env_steps": 4096 * iteration,
        "env_runner_restarts": 1,
        "learner_restarts": 1,
        "lost_rollouts": 1,
        "env_failures": 1,
    }
