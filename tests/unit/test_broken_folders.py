"""Whatever a policy folder holds: it is loaded, or refused in one line, and everything else goes on.

`make test` breaks a few hundred folders, `make test-slow` some thousand others.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.own_loop import run
from tests.unit.broken_folders import Breaker

from scalepilot.cli import policy as policy_command
from scalepilot.errors import InputError
from scalepilot.policy import Discretiser, NetworkPolicy, Policy, TablePolicy, load_policy, pack_policy, read_packed, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.policy.signature import PublicKeys, sign
from scalepilot.serve import PolicyApi, serve_config
from scalepilot.serve.catalogue.opening import open_store
from scalepilot.serve.http.logs import LOGGER
from scalepilot.serve.http.metrics import Metrics
from scalepilot_envs.autoscale import AutoscaleParams

PAGES = ("/metrics", "/v1/policies", "/", "/openapi.json", "/health/ready")
LONGEST_LINE = 700
MOST_SECONDS = 20.0


class Watch:
    """A server's store, its watched folder and its pages, in this process."""

    def __init__(self, folder: Path, **config: Any) -> None:
        folder.mkdir(mode=0o755)
        self.folder = folder
        self.metrics = Metrics()
        self.config = serve_config({"watch": str(folder), **config})
        store, watcher = open_store(self.config, self.metrics)
        assert watcher is not None
        self.store, self.watcher = store, watcher
        self.api = PolicyApi(store, self.config, metrics=self.metrics)
        self.version = 0
        self.lines: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = self.lines.append  # type: ignore[method-assign]
        logger = logging.getLogger(LOGGER)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False

    def take(self) -> list[str]:
        """What two looks say of policies."""
        self.lines.clear()
        self.watcher.look()
        self.watcher.look()
        wanted = ("policy_refused", "policy_loaded")
        return [event for line in self.lines if (event := getattr(line, "event", "")) in wanted]

    def takes_in_a_good_one(self, policy: Callable[[str], Policy]) -> None:
        self.version += 1
        version = str(self.version)
        pack_policy(policy(version)).save(self.folder / "good" / version)
        assert self.take() == ["policy_loaded"]
        assert self.store.get("good").spec.version == version
        if self.version > 2:
            shutil.rmtree(self.folder / "good" / str(self.version - 2))
            self.watcher.look()

    def shows_its_pages(self) -> None:
        async def ask() -> list[tuple[str, int]]:
            transport = httpx.ASGITransport(self.api)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return [(path, (await client.get(path)).status_code) for path in PAGES]

        assert run(ask()) == [(path, 200) for path in PAGES]


def good_rule(version: str) -> Policy:
    return make_rule("static", AutoscaleParams(), {"replicas": 3}, name="good", version=version)


@pytest.fixture
def restored_log() -> Iterator[None]:
    logger = logging.getLogger(LOGGER)
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def good_folders(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> list[Path]:
    """One of each kind, with everything a policy.json may hold."""
    rng = np.random.default_rng(0)
    evaluation = {"workloads": ["w"], "episodes": 3, "policies": {"tiny": {"J": {"mean": 20.5, "low": 1.0, "high": 30.0}}}}
    network = tiny_network(evaluation=evaluation, provenance={"algorithm": "ppo", "config": {"ppo": {"gamma": 0.99}}})
    fields = network.spec.observation_fields
    discretiser = Discretiser(fields, {fields[0].name: [1.0, 2.0, 3.0], fields[1].name: [1.0, 5.0]})
    table_spec = replace(network.spec, name="table", kind="table", decision_rule="argmax_q", files={})
    table = TablePolicy(table_spec, rng.normal(size=(discretiser.num_states, len(table_spec.actions))), discretiser)
    policies: list[Policy] = [network, table, make_rule("hpa", AutoscaleParams()), make_rule("kpa", AutoscaleParams())]
    folders = []
    for i, policy in enumerate(policies):
        save_policy(policy, tmp_path / "good" / str(i))
        folders.append(tmp_path / "good" / str(i))
    return folders


COMMANDS = ("show", "list", "show --json", "list --json")


def check(
    seeds: range, tmp_path: Path, good_folders: list[Path], capsys: pytest.CaptureFixture[str], *, each_fourth: bool = False
) -> int:
    """Break a folder for each seed and do with it all that is done with folders; gives how many were refused.

    Args:
        seeds: of what is done to a folder.
        tmp_path: for the folders.
        good_folders: to break.
        capsys: of the commands.
        each_fourth: load and watch each as always, but give each to one of the commands, and look at the pages a fourth as often.
    """
    watch = Watch(tmp_path / "watched")
    parser = argparse.ArgumentParser()
    policy_command.add_arguments(parser)
    refused = 0
    for seed in seeds:
        folder = watch.folder / "broken"
        how = Breaker(seed).break_one(good_folders[seed % len(good_folders)], folder)
        note = f"seed {seed}: {how}"
        began = time.monotonic()
        try:
            load_policy(folder)
        except InputError as error:
            refused += 1
            said = str(error)
            assert said.isprintable(), (note, said)
            assert len(said) < LONGEST_LINE, (note, said)
        except BaseException as error:
            raise AssertionError(f"{note}: {error!r}") from error
        expected = 1 if os.path.lexists(folder / "policy.json") else 0
        # A folder that nothing was done to may be the one that the watcher has seen already.
        allowed = {0, expected} if "nothing left" in how else {expected}
        assert len(watch.take()) in allowed, (note, [vars(line) for line in watch.lines])
        for command in COMMANDS[seed // 4 % 4 :][:1] if each_fourth else COMMANDS:
            said = ""
            arguments = parser.parse_args([*command.split(), str(folder)])
            try:
                assert policy_command.run(arguments) == 0
            except InputError as error:
                said = str(error)
            except BaseException as error:
                raise AssertionError(f"{note}: {command}: {error!r}") from error
            assert said.isprintable(), (note, command, said)
            capsys.readouterr()
        assert time.monotonic() - began < MOST_SECONDS, note
        if seed % (20 if each_fourth else 5) == 0:
            watch.takes_in_a_good_one(good_rule)
            watch.shows_its_pages()
        remove(folder)
        watch.watcher.look()
    # A restart finds the last one, too.
    Breaker(seeds[0]).break_one(good_folders[0], watch.folder / "broken")
    store, _ = open_store(watch.config, watch.metrics)
    assert "good" in store.catalogue.versions
    return refused


def remove(folder: Path) -> None:
    shutil.rmtree(folder)
    outside = folder.parent / f"{folder.name}-outside"
    outside.unlink(missing_ok=True)


@pytest.mark.usefixtures("restored_log")
def test_a_broken_folder_is_loaded_or_refused_in_a_line_and_all_else_goes_on(
    tmp_path: Path, good_folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(range(160), tmp_path, good_folders, capsys) > 80


@pytest.fixture
def signing(tmp_path: Path) -> tuple[Ed25519PrivateKey, Path]:
    """A key, and the file of its public half."""
    key = Ed25519PrivateKey.generate()
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    path = tmp_path / "public.pem"
    path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, kind))
    return key, path


def test_nothing_of_an_unsigned_folder_is_looked_at_but_its_signature(
    tmp_path: Path, good_folders: list[Path], signing: tuple[Ed25519PrivateKey, Path]
) -> None:
    """Whatever else is wrong, the signature is what is said to be missing; of one that is signed, the rest is looked at."""
    key, path = signing
    keys = PublicKeys(path)
    for seed in range(120):
        folder = tmp_path / "broken"
        how = Breaker(seed).break_one(good_folders[seed % len(good_folders)], folder)
        with pytest.raises(InputError) as caught:
            read_packed(folder, keys)
        said = str(caught.value)
        words = ("signed", "signature", "is not JSON", "is not allowed", "nested", "is a ", "cannot be read", "bytes", "NUL")
        assert any(word in said for word in words), (seed, how, said)
        remove(folder)
    signed = replace(pack_policy(load_policy(good_folders[0])), spec=sign(load_policy(good_folders[0]).spec, key))
    signed.save(tmp_path / "signed")
    assert read_packed(tmp_path / "signed", keys).spec.name == "tiny"
    (tmp_path / "signed" / "model.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match="sha256"):
        read_packed(tmp_path / "signed", keys)


QUOTED = 'it"s \\ a label'


@pytest.mark.usefixtures("restored_log")
def test_a_label_with_a_quotation_mark_is_served_like_any_other(
    tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]
) -> None:
    network = tiny_network()
    actions = (replace(network.spec.actions[0], label=QUOTED), *network.spec.actions[1:])
    watch = Watch(tmp_path / "watched")
    save_policy(NetworkPolicy(replace(network.spec, actions=actions), network.model), watch.folder / "tiny")
    assert watch.take() == ["policy_loaded"]
    served = watch.store.get("tiny")

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(watch.api), base_url="http://localhost") as client:
            return await client.post("/v1/policies/tiny:decide", json={"observation": served.example})

    answer = run(ask())
    assert answer.status_code == 200
    assert QUOTED in answer.json()["probabilities"]
    watch.shows_its_pages()


@pytest.mark.slow
@pytest.mark.usefixtures("restored_log")
@pytest.mark.parametrize("part", range(2))
def test_thousands_of_broken_folders_are_loaded_or_refused_in_a_line(
    tmp_path: Path, good_folders: list[Path], capsys: pytest.CaptureFixture[str], part: int
) -> None:
    first = 10_000 + 1000 * part
    assert check(range(first, first + 1000), tmp_path, good_folders, capsys, each_fourth=True) > 500
