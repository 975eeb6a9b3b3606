"""PPO on CartPole-v1 with an env runner on each of two Ray nodes, undisturbed and with one killed (SIGKILL) every 20 seconds.

64 environments, 4,096 transitions a rollout, minibatches of 256, 4 epochs. The nodes are raylets of their own on this machine.
Undisturbed and disturbed stretches alternate; a disturbed one begins with a kill and lasts until 20 seconds are over and the
runner is back. Runners take turns.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.nodes import ray_nodes, wait_for_nodes
from benchmarks.train_ppo_cartpole import BATCH, config
from scalepilot.cluster.connection import connected
from scalepilot.config.running import ResourcesConfig

if TYPE_CHECKING:
    from scalepilot.learn.rllib.trainer import RLlibTrainer

PAIRS, STRETCH_SECONDS, WARM_UP = 4, 20.0, 5
_KILL_AFTER_SECONDS = 0.3
_ANSWER = "measured: "


@dataclass
class Stretch:
    """What was sampled and learnt in some time.

    Attributes:
        env_steps: transitions.
        seconds: wall-clock time.
        restarts: env runners that came back.
    """

    env_steps: int = 0
    seconds: float = 0.0
    restarts: int = 0

    def add(self, other: Stretch) -> None:
        """Both together."""
        self.env_steps += other.env_steps
        self.seconds += other.seconds
        self.restarts += other.restarts


def train_for(trainer: RLlibTrainer, seconds: float, restarts: int) -> Stretch:
    """Train so long, and on until so many env runners have come back."""
    done, began = Stretch(), time.perf_counter()
    while done.seconds < seconds or done.restarts < restarts:
        done.restarts += int(trainer.iterate()["env_runner_restarts"])
        done.env_steps += BATCH.size
        done.seconds = time.perf_counter() - began
    return done


def kill_runner(trainer: RLlibTrainer, index: int) -> None:
    """Kill the process of an env runner a moment from now, in the middle of an iteration."""
    group = trainer.algorithm.env_runner_group
    pids = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    threading.Timer(_KILL_AFTER_SECONDS, os.kill, (pids[index], signal.SIGKILL)).start()


def measure(pairs: int, stretch_seconds: float) -> tuple[Stretch, Stretch]:
    """Undisturbed and disturbed training, alternating.

    Args:
        pairs: stretches of each.
        stretch_seconds: of each, at least.
    """
    from scalepilot.learn.rllib.trainer import RLlibTrainer
    from scalepilot.learn.task import Task

    undisturbed, disturbed = Stretch(), Stretch()
    with ray_nodes([1, 1]) as address, connected(ResourcesConfig(address=address)):
        wait_for_nodes(2)
        # One torch thread: more of them wait for cores that a starting env runner has, and spin.
        resources = ResourcesConfig(num_env_runners=2, torch_threads=1)
        experiment = replace(config("rllib", BATCH, num_env_runners=2), resources=resources)
        trainer = RLlibTrainer(experiment, Task(experiment))
        try:
            for _ in range(WARM_UP):
                trainer.iterate()
            for pair in range(pairs):
                undisturbed.add(train_for(trainer, stretch_seconds, 0))
                kill_runner(trainer, pair % 2)
                disturbed.add(train_for(trainer, stretch_seconds, 1))
        finally:
            trainer.close()
    return undisturbed, disturbed


def measure_apart(pairs: int, stretch_seconds: float) -> tuple[Stretch, Stretch]:
    """As `measure`, in a process of its own: Ray reads once whether its clusters ask for a token."""
    command = [sys.executable, "-m", "benchmarks.runner_faults", str(pairs), str(stretch_seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Ray prints, too.
    answers = [line for line in done.stdout.splitlines() if line.startswith(_ANSWER)]
    if done.returncode or not answers:
        raise RuntimeError(f"runner_faults: failed\n{done.stderr}")
    undisturbed, disturbed = (Stretch(**values) for values in json.loads(answers[-1].removeprefix(_ANSWER)))
    return undisturbed, disturbed


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures in steps/s, restarts, and what is left of the throughput."""
    undisturbed, disturbed = measure_apart(PAIRS, STRETCH_SECONDS)
    rates = undisturbed.env_steps / undisturbed.seconds, disturbed.env_steps / disturbed.seconds
    figures = {
        "undisturbed_env_steps_per_second": rates[0],
        "env_steps_per_second": rates[1],
        "kills": float(PAIRS),
        "restarts": float(disturbed.restarts + undisturbed.restarts),
        "disturbed_seconds": disturbed.seconds,
    }
    return figures, {"vs_undisturbed": rates[1] / rates[0]}


if __name__ == "__main__":
    measured = measure(int(sys.argv[1]), float(sys.argv[2]))
    print(_ANSWER + json.dumps([asdict(stretch) for stretch in measured]))
