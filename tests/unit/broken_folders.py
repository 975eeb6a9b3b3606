"""Policy folders that somebody broke: mutations of good ones, by a seed. Everything a folder may hold is drawn from here."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

SPARSE_BYTES = 10 << 30
# Strings that are words to nobody: quotes, ends of lines, half a character, commands to a terminal, right to left, very long.
STRINGS = [
    "",
    " ",
    '"',
    "\\",
    'it\'s "quoted"',
    "a\nb",
    "\t",
    "\0",
    "\x1b[2J\x1b]0;x\x07",
    "\x7f\x85",
    "\ud800",
    "\udfff\ud800",
    "\u202eabc",
    "\U0001f600",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "a" * 70_000,
    "NaN",
    "-1e309",
    "__class__",
    "os:system",
]
NUMBERS = [
    0,
    -1,
    1,
    1e-9,
    1e6,
    1e9,
    2**31,
    2**63,
    -(2**63) - 1,
    10**300,
    10**400,
    1e308,
    -1e308,
    5e-324,
    0.1,
    -0.0,
    1e999,
    -1e999,
    float("nan"),
]
FILES = ["gone", "folder", "pipe", "link", "dangling", "device", "loop", "empty", "sparse", "bytes", "pickle", "unreadable name"]
TREES = ["value", "value", "value", "delete", "add", "deep", "many", "swap", "label", "provenance", "number", "number"]
SHAPES = ["(10000000000, 4)", "(-1, 4)", "()", "(0, 0)", "(2, 2, 2, 2, 2)", "(1, " + "1" * 5000 + ")", "eval(1)"]
VALUES: list[Any] = [None, True, False, [], {}, [[]], [None], {"a": 1}, [1, 2, 3], *STRINGS, *NUMBERS]


class Breaker:
    """Breaks a folder.

    Args:
        seed: of everything that is drawn.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def break_one(self, good: Path, folder: Path) -> str:
        """Copy a good folder and break it in one to three ways; gives their names."""
        shutil.copytree(good, folder)
        names = []
        for _ in range(self._draw.choice([1, 1, 1, 2, 3])):
            ways: list[Callable[[Path], str]] = [self._tree, self._tree, self._tree, self._text, self._file]
            if (folder / "model.onnx").is_file():
                ways += [self._model, self._model]
            if (folder / "table.npz").is_file():
                ways += [self._table, self._table]
            way = self._draw.choice(ways)
            # After the first, there may be nothing left that can be broken so.
            try:
                names.append(way(folder))
            except Exception:  # noqa: BLE001
                names.append("nothing left")
            if way == self._file:
                # What is there now need not be a file that ends.
                break
        return ", ".join(names)

    def _spec(self, folder: Path) -> dict[str, Any]:
        values = json.loads((folder / "policy.json").read_bytes())
        if not isinstance(values, dict):
            raise ValueError("no mapping")
        return values

    @staticmethod
    def _write(folder: Path, values: Any) -> None:
        (folder / "policy.json").write_bytes(json.dumps(values).encode())

    def _tree(self, folder: Path) -> str:
        """Change the tree of policy.json at one place."""
        draw, spec = self._draw, self._spec(folder)
        parent, key = self._place(spec)
        way = draw.choice(TREES)
        if way == "value":
            parent[key] = draw.choice(VALUES)
        elif way == "delete":
            del parent[key]
        elif way == "add" and isinstance(parent, dict):
            parent[draw.choice(STRINGS)] = draw.choice(VALUES)
        elif way == "deep":
            parent[key] = self._deep(draw.choice([10, 40, 400, 900]))
        elif way == "many":
            parent[key] = [parent[key]] * draw.choice([2, 100, 5000]) if draw.random() < 0.5 else {str(i): i for i in range(5000)}
        elif way == "swap":
            parent[key] = str(parent[key]) if draw.random() < 0.5 else [parent[key]]
        elif way == "number":
            parent, key = draw.choice(list(self._numbers(spec)))
            parent[key] = draw.choice(NUMBERS)
        elif way == "label":
            self._label(spec)
        else:
            spec["provenance"] = {draw.choice(STRINGS): draw.choice([self._deep(300), *VALUES])}
        self._write(folder, spec)
        return f"tree {way} {key!r}"[:60]

    def _label(self, spec: dict[str, Any]) -> None:
        rows = [*spec.get("actions", []), *spec.get("observation_fields", []), *spec.get("components", [])]
        for row in rows if self._draw.random() < 0.3 else [self._draw.choice(rows)]:
            name = "label" if "label" in row else "name"
            row[self._draw.choice([name, name, "unit" if "unit" in row else name])] = self._draw.choice(STRINGS)

    def _place(self, tree: Any) -> tuple[Any, Any]:
        """A container somewhere in the tree, and one of its keys."""
        while True:
            keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
            key = self._draw.choice(keys)
            inner = tree[key]
            if not isinstance(inner, dict | list) or not inner or self._draw.random() < 0.3:
                return tree, key
            tree = inner

    def _numbers(self, tree: Any) -> Iterator[tuple[Any, Any]]:
        """Every place of a number: (container, key)."""
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if isinstance(value, dict | list):
                yield from self._numbers(value)
            elif isinstance(value, int | float):
                yield tree, key

    @staticmethod
    def _deep(depth: int) -> Any:
        value: Any = 1
        for i in range(depth):
            value = [value] if i % 2 else {"a": value}
        return value

    def _text(self, folder: Path) -> str:
        """Change the bytes of policy.json."""
        draw, path = self._draw, folder / "policy.json"
        data = path.read_bytes()
        at = draw.randrange(len(data) + 1)
        ways: dict[str, Callable[[], bytes]] = {
            "cut": lambda: data[:at],
            "flip": lambda: data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
            "bom": lambda: b"\xef\xbb\xbf" + data,
            "utf-16": lambda: data.decode().encode("utf-16"),
            "latin-1": lambda: data[:at] + b"\xff\xfe" + data[at:],
            "tail": lambda: data + b"}",
            "twice": lambda: data.replace(b'"name":', b'"name": "other", "name":', 1),
            "constant": lambda: data.replace(b"1", draw.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 5000]), 1),
            "nested": lambda: data.replace(
                b'"provenance": {', b'"provenance": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b", ", 1
            ),
            "surrogate": lambda: data.replace(b'": "', b'": "\\ud800', draw.choice([1, 3])),
            "spaces": lambda: data + b" " * 2_000_000,
            "empty": lambda: b"",
            "null": lambda: draw.choice([b"null", b"[]", b"3", b'"x"', b"[" * 100_000, b'{"signature": ' * 50_000]),
        }
        way = draw.choice(list(ways))
        path.write_bytes(ways[way]())
        return f"text {way}"

    def _file(self, folder: Path) -> str:
        """Put something else in place of a file, or beside the files."""
        draw = self._draw
        path = folder / draw.choice([*sorted(file.name for file in folder.iterdir()), "extra"])
        way = draw.choice(
            [
                "gone",
                "folder",
                "pipe",
                "link",
                "dangling",
                "device",
                "loop",
                "empty",
                "sparse",
                "bytes",
                "pickle",
                "unreadable name",
            ]
        )
        if way == "pickle":
            (folder / "weights.pkl").write_bytes(b"\x80\x04.")
            return "file pickle"
        if way == "unreadable name":
            Path(os.fsdecode(bytes(os.fsencode(folder)) + b"/\xff\xfe\n")).write_bytes(b"x")
            return "file unreadable name"
        outside = folder.parent / f"{folder.name}-outside"
        if path.exists() and way == "link":
            shutil.copy(path, outside)
        path.unlink(missing_ok=True)
        if way == "folder":
            path.mkdir()
        elif way == "pipe":
            os.mkfifo(path)
        elif way in ("link", "dangling", "device", "loop"):
            path.symlink_to({"link": outside, "dangling": folder / "nothing", "device": "/dev/zero", "loop": path}[way])
        elif way == "empty":
            path.write_bytes(b"")
        elif way == "sparse":
            with path.open("wb") as file:
                file.truncate(SPARSE_BYTES)
        elif way == "bytes":
            path.write_bytes(draw.randbytes(draw.choice([1, 100, 100_000])))
        return f"file {way} {path.name}"

    def _model(self, folder: Path) -> str:
        """Change the graph, or the bytes, of a network; the hash goes with it."""
        draw, path = self._draw, folder / "model.onnx"
        data = path.read_bytes()
        way = draw.choice([*GRAPHS, "flip", "flip", "flip", "cut", "zeros", "varints"])
        if way in GRAPHS:
            model = ModelProto.FromString(data)
            GRAPHS[way](model)
            changed = model.SerializeToString()
        elif way == "flip":
            flipped = bytearray(data)
            for _ in range(draw.choice([1, 4, 30])):
                flipped[draw.randrange(len(flipped))] = draw.randrange(256)
            changed = bytes(flipped)
        elif way == "cut":
            changed = data[: draw.randrange(len(data))]
        else:
            changed = b"\0" * 20_000_000 if way == "zeros" else b"\x08\x00" * 5_000_000
        self._put(folder, path, changed)
        return f"model {way}"

    def _table(self, folder: Path) -> str:
        """Change the members, headers or bytes of a table; the hash goes with it."""
        draw, path = self._draw, folder / "table.npz"
        data = path.read_bytes()
        way = draw.choice(["header", "header", "flip", "flip", "cut", "deflated", "object", "twice", "other", "bomb", "nan"])
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        kind = zipfile.ZIP_STORED
        name, raw = members[draw.randrange(len(members))]
        if way == "header":
            shape = draw.choice(
                ["(10000000000, 4)", "(-1, 4)", "()", "(0, 0)", "(2, 2, 2, 2, 2)", "(1, " + "1" * 5000 + ")", "eval(1)"]
            )
            text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
            raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) & 0xFFFF) + text + raw[-64:]
        elif way == "object":
            raw = raw.replace(b"<f8", b"|O8").replace(b"<f4", b"|O4")
        elif way == "nan":
            raw = raw[:-8] + struct.pack("<d", float("nan"))
        elif way == "deflated":
            kind = zipfile.ZIP_DEFLATED
        elif way == "bomb":
            kind, raw = zipfile.ZIP_DEFLATED, raw + bytes(50_000_000)
        elif way == "other":
            name = draw.choice(["r.npy", "edges_9999.npy", "../q.npy", "q.npy/", "\u202eq.npy", "edges_0.pkl"])
        if way in ("flip", "cut"):
            flipped = bytearray(data)
            for _ in range(draw.choice([1, 4, 30])):
                flipped[draw.randrange(len(flipped))] = draw.randrange(256)
            changed = bytes(flipped) if way == "flip" else data[: draw.randrange(len(data))]
        else:
            buffer = io.BytesIO()
            with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
                warnings.simplefilter("ignore")
                for other, content in [*((n, r) for n, r in members if n != name or way == "twice"), (name, raw)]:
                    info = zipfile.ZipInfo(f"{other} " if way == "twice" and content is raw else other)
                    info.compress_type = kind
                    archive.writestr(info, content)
            changed = buffer.getvalue()
        self._put(folder, path, changed)
        return f"table {way}"

    def _put(self, folder: Path, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        spec = self._spec(folder)
        spec["files"][path.name] = hashlib.sha256(data).hexdigest()
        self._write(folder, spec)


def _graph(change: Callable[[Any], object]) -> Callable[[ModelProto], object]:
    return lambda model: change(model.graph)


def _replace_nodes(graph: Any, *nodes: tuple[str, list[str], list[str]]) -> None:
    del graph.node[:]
    graph.node.extend(helper.make_node(*node) for node in nodes)


def _huge(graph: Any) -> None:
    """A small file that computes with a hundred gigabytes."""
    graph.initializer.append(numpy_helper.from_array(np.array([30_000_000_000], np.int64), "count"))
    graph.node.insert(0, helper.make_node("ConstantOfShape", ["count"], ["many"]))
    graph.node.insert(1, helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0))
    last = graph.node[-1]
    last.output[0] = "before"
    graph.node.append(helper.make_node("Add", ["before", "sum"], [graph.output[0].name]))


def _external(graph: Any) -> None:
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _loop(graph: Any) -> None:
    body = helper.make_graph([], "body", [], [])
    graph.node.append(helper.make_node("Loop", ["", ""], [], body=body))


def _branch(graph: Any) -> None:
    empty = helper.make_graph([], "branch", [], [])
    graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=empty, else_branch=empty))


def _dims(graph: Any) -> None:
    graph.initializer[0].dims[0] = 2**40


# Ways to break a graph.
GRAPHS: dict[str, Callable[[ModelProto], object]] = {
    "cycle": _graph(
        lambda g: _replace_nodes(g, helper.make_node("Add", ["b", "b"], ["a"]), helper.make_node("Add", ["a", "a"], ["b"]))
    ),
    "unknown operator": _graph(lambda g: _replace_nodes(g, ("Nonsense\n\x1b", ["observation"], ["scores"]))),
    "foreign domain": _graph(
        lambda g: _replace_nodes(g, helper.make_node("Gelu", ["observation"], ["scores"], domain="com.microsoft"))
    ),
    "external": _graph(_external),
    "loop": _graph(_loop),
    "branch": _graph(_branch),
    "huge": _graph(_huge),
    "dimensions": _graph(_dims),
    "negative dimension": _graph(lambda g: g.initializer[0].dims.__setitem__(0, -5)),
    "no output": _graph(lambda g: g.ClearField("output")),
    "no input": _graph(lambda g: g.ClearField("input")),
    "no nodes": _graph(lambda g: g.ClearField("node")),
    "two inputs": _graph(lambda g: g.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))),
    "text output": _graph(lambda g: g.output.insert(0, helper.make_tensor_value_info("scores", TensorProto.STRING, [1, 8]))),
    "missing weights": _graph(lambda g: g.ClearField("initializer")),
    "NaN weights": _graph(
        lambda g: g.initializer[0].CopyFrom(
            numpy_helper.from_array(np.full(tuple(g.initializer[0].dims), np.nan, np.float32), g.initializer[0].name)
        )
    ),
    "opset": lambda m: m.opset_import[0].__setattr__("version", 9999),
    "ir version": lambda m: m.__setattr__("ir_version", 2**40),
    "function": lambda m: m.functions.add(name="f"),
    "two graphs": lambda m: m.MergeFromString(m.SerializeToString()),
    "metadata": lambda m: m.metadata_props.add(key="a" * 100_000, value="\0"),
}
