"""Finished runs are copied to where they were asked for, whole; what cannot be written is told before anything is trained."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from scalepilot.cluster.storage import check_storage, store, unpack
from scalepilot.errors import InputError, RunError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "demo" / "20261121-120000-0"
    for name in ("run.json", "policy/model.onnx", "checkpoints/000001/loop.json", "plots/a.svg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_run_is_copied_without_its_checkpoints(run: Path, tmp_path: Path):
    uri = f"file://{tmp_path}/mnt/kept"
    check_storage(uri)
    assert store(run, uri) == f"{uri}/demo/20261121-120000-0"
    copy = tmp_path / "mnt" / "kept" / "demo" / run.name
    kept = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    assert kept == ["plots/a.svg", "policy/model.onnx", "run.json"]
    assert (copy / "policy" / "model.onnx").read_text() == "policy/model.onnx"
    assert not [*(tmp_path / "mnt" / "kept").glob(".*")]


@pytest.mark.parametrize("uri", ["runs", "ftp://host/x", "file:///proc/no/such"])
def test_a_place_that_cannot_be_written_is_a_line(uri: str):
    with pytest.raises(InputError) as raised:
        check_storage(uri)
    assert uri in str(raised.value)
    assert "allowed: a URI such as" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_credentials_in_a_uri_are_not_repeated(run: Path):
    nobody = "s3://key:secret@bucket/runs?scheme=http&endpoint_override=127.0.0.1:9&region=x"
    with pytest.raises(RunError) as raised:
        store(run, nobody)
    assert "secret" not in str(raised.value)
    assert "s3://bucket/runs" in str(raised.value)


def test_what_comes_back_through_ray_must_be_an_archive_that_stays_in_its_folder(tmp_path: Path):
    archive = tmp_path / "run.tar.gz"
    archive.write_bytes(b"no archive")
    with pytest.raises(RunError, match="is no run"):
        unpack(archive, tmp_path / "out")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, arcname="../../outside")
    with pytest.raises(RunError, match="is no run"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path.parent / "outside").exists()
