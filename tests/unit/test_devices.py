"""Which device learns: what is asked for, what is there, and what is said where they differ."""

from __future__ import annotations

import pytest
import torch

from scalepilot.config.running import ResourcesConfig
from scalepilot.errors import InputError
from scalepilot.learn.devices import choose_device


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("gpus", "asked", "chosen", "num_gpus"),
    [
        (0, {}, "cpu", 0),
        (1, {}, "cuda", 1),
        (1, {"device": "cpu"}, "cpu", 0),
        (2, {"num_learners": 2, "device": "cuda"}, "cuda", 1),
        (1, {"num_learners": 2}, "cpu", 0),
        (1, {"num_learners": 2, "num_gpus_per_learner": 0.5}, "cuda", 0.5),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_auto_is_cuda_where_there_is_enough_of_it(asked: dict[str, object], chosen: str, num_gpus: float):
    device = choose_device(ResourcesConfig(**asked))  # type: ignore[arg-type]
    assert (device.name, device.num_gpus) == (chosen, num_gpus)
    assert device.reason.startswith(f"learning on {chosen}")


@pytest.mark.parametrize(
    ("gpus", "asked", "message"),
    [
        (0, {"device": "cuda"}, "resources.device: cuda is not allowed, this machine has no CUDA GPU; allowed: cpu"),
        (
            0,
            {"device": "mps"},
            "resources.device: mps is not allowed, this machine has no Apple GPU that torch can use; allowed: cpu",
        ),
        (
            0,
            {"num_gpus_per_learner": 1},
            "resources.num_gpus_per_learner: 1 is not allowed, this machine has no CUDA GPU; allowed: 0",
        ),
        (1, {"num_gpus_per_learner": 2}, "resources.num_gpus_per_learner: 2 is not allowed, this machine has 1 CUDA GPUs"),
        (1, {"device": "cuda", "num_learners": 2}, "this machine has 1 CUDA GPUs for 2 learners"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_what_is_asked_for_and_missing_is_one_line(asked: dict[str, object], message: str):
    with pytest.raises(InputError) as raised:
        choose_device(ResourcesConfig(**asked))  # type: ignore[arg-type]
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_remote_learners_count_the_clusters_gpus():
    resources = ResourcesConfig(num_learners=2, device="cuda")
    assert choose_device(resources, cluster_gpus=2.0).name == "cuda"
    with pytest.raises(InputError, match="the cluster has 1 CUDA GPUs for 2 learners"):
        choose_device(resources, cluster_gpus=1.0)
