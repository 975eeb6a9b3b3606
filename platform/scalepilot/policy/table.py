"""Policies that are a table: Q-values of numbered states, and the edges that number them. No torch, no pickle."""

from __future__ import annotations

import io
import math
import re
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy.decoder import MoveDecoder
from scalepilot.policy.discretiser import MAX_ENTRIES, Discretiser
from scalepilot.policy.masks import masked_scores, valid_actions
from scalepilot.policy.protocol import Decision, State
from scalepilot.policy.spec import PolicySpec

TABLE_FILE = "table.npz"
_Q_MEMBER, _EDGES_MEMBER = "q.npy", re.compile(r"edges_(0|[1-9]\d{0,3})\.npy")
_Q_TYPE, _EDGES_TYPE = np.dtype("<f8"), np.dtype("<f4")
_MAX_EDGES = 1000
# What numpy writes before an array. Its own reader evaluates this text, and takes objects, records and old versions, too.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)(?P<text>\{'descr': '(?P<type>[^']{1,8})', 'fortran_order': (?P<fortran>False|True),"
    rb" 'shape': \((?P<shape>\d{0,18}(?:,(?: \d{1,18})?){0,4})\), \} *\n)",
    re.DOTALL,
)
# A date, as zip wants one in every entry: always the same, so that the same table gives the same bytes.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class TablePolicy:
    """A Q-table with an action table.

    Args:
        spec: its description; kind "table".
        q: (num_states, num_actions) float64 Q-values; not copied.
        discretiser: numbers the states.

    Raises:
        ArtifactError: the table does not fit the description.
    """

    def __init__(self, spec: PolicySpec, q: NDArray[np.float64], discretiser: Discretiser) -> None:
        wanted = (discretiser.num_states, len(spec.actions))
        if q.shape != wanted:
            grid = " × ".join(str(count) for count in discretiser.shape)
            raise ArtifactError(
                f"{spec.name}: table.npz holds Q-values of {q.shape[0]} states and {q.shape[-1]} actions, its edges make {grid}"
                f" = {wanted[0]} states and policy.json has {wanted[1]} actions"
            )
        if not np.isfinite(q).all():
            raise ArtifactError(f"{spec.name}: table.npz holds Q-values that are not finite")
        self.spec, self.q, self.discretiser = spec, q, discretiser
        self._decoder = MoveDecoder(spec)

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """The action of the highest Q-value, the first of several; see `Policy.act`."""
        # As a network sees it: the same state, whether a client sends float64 or the environment shows float32.
        shown, valid = valid_actions(self.spec, np.asarray(observation, dtype=np.float32))
        values = self.q[self.discretiser.states(shown)]
        best = values if valid is None else np.where(valid, values, -np.inf)
        scores = masked_scores(values.astype(np.float32), valid)
        return self._decoder.decision(observation, scores, best.argmax(axis=1)), None

    def to_bytes(self) -> bytes:
        """The file: the Q-values and, by the index of their field, the edges; the same table gives the same bytes."""
        names = [f.name for f in self.discretiser.fields]
        arrays: dict[str, NDArray[Any]] = {_Q_MEMBER: np.ascontiguousarray(self.q, dtype=_Q_TYPE)}
        arrays |= {f"edges_{names.index(n)}.npy": e.astype(_EDGES_TYPE) for n, e in self.discretiser.edges.items()}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(name, _ZIP_DATE), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, spec: PolicySpec, data: bytes) -> TablePolicy:
        """Read what `to_bytes` wrote.

        Args:
            spec: the description it belongs to.
            data: the file.

        Raises:
            ArtifactError: another file, or one that does not fit the description; nothing of a size that a header merely
                claims is ever allocated.
        """
        try:
            q, edges = _read_members(data)
        except (ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise ArtifactError(
                f"{spec.name}: {TABLE_FILE}: {(str(error).splitlines() or ['cannot be read'])[0][:200]}"
            ) from None
        fields = spec.observation_fields
        if max(edges, default=-1) >= len(fields):
            raise ArtifactError(
                f"{spec.name}: {TABLE_FILE} has edges of observation field {max(edges)},"
                f" policy.json has {len(fields)} observation fields"
            )
        try:
            discretiser = Discretiser(fields, {fields[i].name: values for i, values in edges.items()})
        except ValueError as error:
            raise ArtifactError(f"{spec.name}: {TABLE_FILE}: {error}") from None
        return cls(spec, q, discretiser)


def _read_members(data: bytes) -> tuple[NDArray[np.float64], dict[int, NDArray[np.float32]]]:
    """The Q-values, and field index → edges.

    Raises:
        ValueError: a member that does not belong, is compressed, or is not the array it should be.
    """
    q: NDArray[np.float64] | None = None
    edges: dict[int, NDArray[np.float32]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            named = _EDGES_MEMBER.fullmatch(member.filename)
            twice = q is not None if member.filename == _Q_MEMBER else bool(named and int(named[1]) in edges)
            if twice or not (named or member.filename == _Q_MEMBER):
                raise ValueError(f"{member.filename[:80]!r} is not allowed; allowed: q.npy and edges_INDEX.npy, each once")
            # Stored as it is: nothing unpacks to more than the file's own size.
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.file_size > len(data):
                raise ValueError(f"{member.filename} is compressed or encrypted; allowed: stored as it is")
            raw = archive.read(member)
            if named:
                edges[int(named[1])] = _array(member.filename, raw, _EDGES_TYPE, 1, _MAX_EDGES)
            else:
                q = _array(member.filename, raw, _Q_TYPE, 2, MAX_ENTRIES)
    if q is None:
        raise ValueError("holds no q.npy")
    return q, edges


def _array(name: str, raw: bytes, dtype: np.dtype[Any], num_axes: int, most: int) -> NDArray[Any]:
    """The array of one member, its header checked against what is there before anything is made of it."""
    header = _HEADER.match(raw)
    if header is None or int.from_bytes(header["length"], "little") != len(header["text"]):
        raise ValueError(f"{name}: its header is not one of a plain array (.npy, version 1.0)")
    stored, order = header["type"].decode(), "Fortran" if header["fortran"] == b"True" else "C"
    shape = tuple(int(count) for count in header["shape"].replace(b",", b" ").split())
    if stored != dtype.str or order != "C" or len(shape) != num_axes:
        raise ValueError(f"{name} is {stored} {shape} in {order} order; allowed: {dtype.str} with {num_axes} axes in C order")
    count, there = math.prod(shape), len(raw) - header.end()
    if count > most or count * dtype.itemsize != there:
        raise ValueError(f"{name} claims {shape}, of which {there:,} bytes are there; allowed: up to {most:,} numbers, all there")
    return np.frombuffer(raw, dtype, count, header.end()).reshape(shape)
