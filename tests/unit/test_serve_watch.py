"""A watched folder: new versions are taken in, unfit ones change nothing, and a default can be rolled back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalepilot.errors import ConfigError, InputError
from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyStore, RequestError, serve_config
from scalepilot.serve.catalogue.opening import open_store
from scalepilot.serve.catalogue.rollback import roll_back
from scalepilot.serve.catalogue.store import Catalogue, version_order
from scalepilot.serve.catalogue.watch import PolicyWatcher
from scalepilot.serve.http.metrics import Metrics
from scalepilot_envs.autoscale import AutoscaleParams


class Watched:
    """A folder with a store that follows it."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.config = serve_config({"watch": str(folder), **config})
        self.metrics = Metrics()
        store, watcher = open_store(self.config, self.metrics)
        assert watcher is not None
        self.store: PolicyStore = store
        self.watcher: PolicyWatcher = watcher

    def put(self, version: str, replicas: int = 4, name: str = "shop") -> Path:
        place = self.folder / name / version
        save_policy(make_rule("static", AutoscaleParams(), {"replicas": replicas}, name=name, version=version), place)
        return place

    def look(self) -> None:
        # What has changed is taken in once it has settled.
        self.watcher.look()
        self.watcher.look()

    def served(self) -> list[str]:
        return [served.reference for served in self.store]

    def default(self, name: str = "shop") -> str:
        return self.store.get(name).spec.version

    def loads(self, result: str) -> float:
        return self.metrics._counters["policy_loads"].get((result,), 0)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    (tmp_path / "policies").mkdir(mode=0o755)
    return Watched(tmp_path / "policies")


def test_an_empty_folder_is_followed_until_something_is_there(watched: Watched) -> None:
    assert watched.served() == []
    watched.put("1")
    watched.look()
    assert watched.served() == ["shop@1"]


def test_a_higher_version_becomes_the_default_and_the_old_one_stays(watched: Watched) -> None:
    for version in ("1.9", "1.10", "1.2"):
        watched.put(version)
        watched.look()
    assert watched.default() == "1.10"
    assert watched.served() == ["shop@1.2", "shop@1.9", "shop@1.10"]


def test_the_catalogue_is_replaced_only_where_something_changed(watched: Watched) -> None:
    watched.put("1")
    watched.look()
    before = watched.store.catalogue
    watched.look()
    assert watched.store.catalogue is before
    watched.put("2")
    watched.look()
    assert watched.store.catalogue is not before
    # What a request took before the swap is whole.
    assert [served.reference for served in before] == ["shop@1"]


@pytest.mark.parametrize("damage", ["truncate", "pickle", "hash", "json", "foreign", "open"])
def test_an_unfit_version_is_counted_and_the_old_one_goes_on(
    watched: Watched, tiny_network: Callable[..., NetworkPolicy], damage: str
) -> None:
    save_policy(tiny_network(version="1"), watched.folder / "tiny" / "1")
    watched.look()
    place = watched.folder / "tiny" / "2"
    save_policy(tiny_network(version="2"), place)
    model = place / "model.onnx"
    if damage == "truncate":
        model.write_bytes(model.read_bytes()[:-40])
    elif damage == "pickle":
        (place / "weights.pkl").write_bytes(b"\x80\x04.")
    elif damage == "hash":
        model.write_bytes(model.read_bytes()[:-1] + b"!")
    elif damage == "json":
        (place / "policy.json").write_bytes((place / "policy.json").read_bytes()[:500])
    elif damage == "foreign":
        save_policy(
            make_rule("static", AutoscaleParams(observe_clock=True), name="tiny", version="2"),
            place,
        )
    else:
        place.chmod(0o777)
    for _ in range(3):
        watched.look()
    assert watched.served() == ["tiny@1"]
    assert watched.default("tiny") == "1"
    assert watched.loads("refused") == 1


def test_a_policy_that_is_copied_file_by_file_is_taken_in_when_it_is_whole(
    watched: Watched, tiny_network: Callable[..., NetworkPolicy], tmp_path: Path
) -> None:
    save_policy(tiny_network(), tmp_path / "whole")
    place = watched.folder / "tiny"
    place.mkdir()
    shutil.copy(tmp_path / "whole" / "policy.json", place)
    watched.watcher.look()
    whole = (tmp_path / "whole" / "model.onnx").read_bytes()
    for share in (0.3, 0.7, 1.0):
        (place / "model.onnx").write_bytes(whole[: int(share * len(whole))])
        watched.watcher.look()
        assert watched.served() == []
    watched.watcher.look()
    assert watched.served() == ["tiny@1"]
    assert watched.loads("refused") == 0


def test_a_model_that_was_cut_off_and_is_mended_is_taken_in(watched: Watched, tiny_network: Callable[..., NetworkPolicy]) -> None:
    save_policy(tiny_network(), watched.folder / "tiny")
    model = watched.folder / "tiny" / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-10])
    watched.look()
    assert watched.served() == []
    assert watched.loads("refused") == 1
    model.write_bytes(whole)
    watched.look()
    assert watched.served() == ["tiny@1"]


def test_a_repaired_version_is_taken_in(watched: Watched) -> None:
    place = watched.put("1")
    whole = (place / "policy.json").read_bytes()
    (place / "policy.json").write_bytes(whole[:100])
    watched.look()
    assert watched.served() == []
    (place / "policy.json").write_bytes(whole)
    watched.look()
    assert watched.served() == ["shop@1"]


def test_a_version_that_vanishes_is_dropped_but_never_the_last_of_its_name(watched: Watched) -> None:
    first, second = watched.put("1"), watched.put("2")
    watched.look()
    shutil.rmtree(second)
    watched.look()
    assert watched.served() == ["shop@1"]
    shutil.rmtree(first)
    watched.look()
    assert watched.served() == ["shop@1"]


def test_the_same_version_in_two_folders_is_refused(watched: Watched) -> None:
    shutil.copytree(watched.put("1"), watched.folder / "shop" / "copy")
    watched.look()
    assert watched.served() == ["shop@1"]
    assert watched.loads("refused") == 1


def test_runs_in_the_folder_are_served_by_their_best_policy_alone(watched: Watched) -> None:
    for name in ("policy", "policy-final"):
        rule = make_rule("static", AutoscaleParams(), {"replicas": 3}, name="run", version=name)
        save_policy(rule, watched.folder / "run-7" / name)
    watched.look()
    assert watched.served() == ["run@policy"]


def test_routes_are_followed_and_unfit_ones_change_nothing(watched: Watched) -> None:
    watched.put("1")
    watched.put("2")
    routes = watched.folder / "routes.yaml"
    routes.write_text("shop: {default: '1', canary: {policy: shop@2, share: 0.5}, shadow: shop@2}\n")
    watched.look()
    assert watched.default() == "1"
    assert watched.store.catalogue.routes["shop"].shadow == "shop@2"
    for wrong in (
        "shop: {default: '3'}\n",
        "shop: {defualt: '2'}\n",
        "shop: [",
        "other: {}\n",
        "shop: {canary: {policy: shop@2, share: 2}}",
    ):
        routes.write_text(wrong)
        watched.look()
        assert watched.default() == "1"
    routes.unlink()
    watched.look()
    assert watched.default() == "2"


def test_a_rollback_names_the_version_before_and_every_server_follows(watched: Watched) -> None:
    for version in ("1", "2", "3"):
        watched.put(version)
    watched.look()
    assert watched.default() == "3"
    assert "3 → 2" in roll_back(watched.folder, "shop", watched.config)
    watched.look()
    assert watched.default() == "2"
    roll_back(watched.folder, "shop@3", watched.config)
    watched.look()
    assert watched.default() == "3"
    for wrong, words in (("shop@9", "'9' is not served"), ("shup", "did you mean shop")):
        with pytest.raises(InputError, match=words):
            roll_back(watched.folder, wrong, watched.config)
    roll_back(watched.folder, "shop@1", watched.config)
    with pytest.raises(InputError, match="lowest version"):
        roll_back(watched.folder, "shop", watched.config)


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o757)
    with pytest.raises(InputError, match="others may write"):
        Watched(folder)
    with pytest.raises(InputError, match="cannot be read"):
        Watched(tmp_path / "none")


def test_who_asks_for_what_is_being_loaded_is_told_to_come_back(watched: Watched) -> None:
    watched.put("1")
    watched.look()
    catalogue = Catalogue(watched.store.catalogue.versions, {}, frozenset({("shop", "2"), ("new", "1")}))
    for name, version in (("shop", "2"), ("new", None), ("new", "1")):
        with pytest.raises(RequestError) as refusal:
            catalogue.get(name, version)
        assert refusal.value.status == 503
        assert ("retry-after", "1") in refusal.value.headers
    assert catalogue.get("shop").spec.version == "1"


def test_a_route_to_a_policy_of_another_observation_is_refused(watched: Watched, tmp_path: Path) -> None:
    watched.put("1")
    other = make_rule("static", AutoscaleParams(max_replicas=7), {"replicas": 3}, name="small")
    save_policy(other, watched.folder / "small")
    watched.look()
    with pytest.raises(ConfigError, match="other observation fields"):
        Catalogue.of(list(watched.store), serve_config({"routes": {"shop": {"shadow": "small"}}}).routes)


def test_versions_are_ordered_by_their_numbers() -> None:
    versions = ["1.10", "1.9", "20261121-121208-0", "2", "1.9-rc1", "20261120-235959-9"]
    assert sorted(versions, key=version_order) == ["1.9", "1.9-rc1", "1.10", "2", "20261120-235959-9", "20261121-121208-0"]
