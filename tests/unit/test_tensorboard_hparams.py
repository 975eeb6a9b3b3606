"""TensorBoard's HParams page finds what a run was trained with."""

from __future__ import annotations

import pytest

from scalepilot.config import config_from_mapping
from scalepilot.learn.callbacks.tensorboard import TensorBoard, hyperparameters


def test_hyperparameters_are_dotted_keys_without_where_a_run_is_kept():
    found = hyperparameters(config_from_mapping({"seed": 3, "ppo": {"lr": 0.001}}).to_mapping())
    assert (found["seed"], found["ppo.lr"], found["algorithm"]) == (3, 0.001, "ppo")
    assert not [key for key in found if key.split(".")[0] in ("output", "resources", "evaluation")]
    assert all(isinstance(value, bool | int | float | str) for value in found.values())


def test_the_page_of_hyperparameters_reads_them_and_the_scalars_beside(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    board = TensorBoard(tmp_path, {"seed": 3, "ppo": {"lr": 0.5, "clip": None, "sizes": [1, 2]}, "flag": True, "output": "x"})
    board.on_begin(0)
    board.on_iteration({"env_steps": 10, "episode_return_mean": 7.0}, lambda: None)
    board.on_end(True)
    accumulator = accumulators.EventAccumulator(str(tmp_path)).Reload()
    assert accumulator.Tags()["scalars"] == ["train/episode_return_mean"]
    content = accumulator.PluginTagToContent("hparams")
    start = plugin.HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    read = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()}
    assert read == {"seed": 3.0, "ppo.lr": 0.5, "ppo.sizes": "[1, 2]", "flag": True}
    experiment = plugin.HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    assert "train/episode_return_mean" in [metric.name.tag for metric in experiment.metric_infos]
