"""Published numbers, one command each: `python -m benchmarks [NAME…]`."""

from __future__ import annotations

# name → module with `run() -> (figures, ratios)`: plain numbers, ratios measured in one run and named for the rival.
BENCHMARKS = {
    "env_step": "benchmarks.env_step",
    "latency_model": "benchmarks.latency_model",
    "optimum": "benchmarks.optimum",
    "causal_optimum": "benchmarks.causal_optimum",
    "compare": "benchmarks.compare",
    "live_effects": "benchmarks.live_effects",
    "reality": "benchmarks.reality",
    "coverage": "benchmarks.coverage",
    "serve": "benchmarks.serve",
    "serve_memory": "benchmarks.serve_memory",
    "operate_ray_serve": "benchmarks.operate_ray_serve",
    "cli_start": "benchmarks.cli_start",
    "train_ppo_autoscale": "benchmarks.train_ppo_autoscale",
    "train_dqn": "benchmarks.train_dqn",
    "train_ppo_cartpole": "benchmarks.train_ppo_cartpole",
    "train_ppo_large": "benchmarks.train_ppo_large",
    "learner": "benchmarks.learner",
    "runner_faults": "benchmarks.runner_faults",
    "solve_cartpole": "benchmarks.solve_cartpole",
    "transfer": "benchmarks.transfer",
    "scaling": "benchmarks.scaling",
    "tune_overhead": "benchmarks.tune_overhead",
}

__all__ = ["BENCHMARKS"]
