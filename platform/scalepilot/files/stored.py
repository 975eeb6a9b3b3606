"""The one door for files that are read: a regular file of bounded size, as plain data, a typed record or a table.

A stored file may be cut off, swapped for a pipe or a device, grown to gigabytes, or written by somebody else. Whatever it is,
reading it ends in time and in bounded memory: with what it holds, or with one InputError that names the file, the key, the value
and what is allowed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scalepilot.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import TypeAdapter, ValidationError

# Of a file as it lies there, and of what is unpacked from it.
MAX_JSON_BYTES, MAX_TEXT_BYTES, MAX_TABLE_BYTES = 10_000_000, 100_000_000, 500_000_000
_MAX_DEPTH = 32
# Of stored files that name one; those that do not are of this one.
SCHEMA_VERSION = 1
# What numpy, pyarrow and SQLite hold as a whole number.
_MAX_WHOLE = 2**63 - 1
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_LONGEST_SHOWN = 80

Record = TypeVar("Record")


def read_bytes(path: Path, most: int = MAX_TABLE_BYTES, error: type[InputError] = InputError) -> bytes:
    """What a regular file holds; links to one are followed.

    Args:
        path: the file.
        most: bytes that are allowed.
        error: what is raised.

    Raises:
        InputError: no such file, no permission, no regular file, or larger than allowed.
    """
    try:
        # A pipe without a writer would be waited for for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
                raise error(f"{path}: cannot be read (is {kind}); allowed: a regular file")
            if status.st_size > most:
                raise error(f"{path}: {status.st_size} bytes; allowed: up to {most}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(most + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as problem:
        raise error(f"{path}: cannot be read ({_reason(problem)})") from None
    if len(data) > most:
        raise error(f"{path}: more than {most} bytes; allowed: up to {most}")
    return data


def read_text(path: Path, most: int = MAX_TEXT_BYTES, error: type[InputError] = InputError) -> str:
    """What a UTF-8 file holds; line ends stay as they are.

    Raises:
        InputError: as `read_bytes`, or not UTF-8, or with NUL bytes.
    """
    try:
        text = read_bytes(path, most, error).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: is not UTF-8 text (byte {problem.start})") from None
    if "\0" in text:
        raise error(f"{path}: holds NUL bytes (character {text.index(chr(0))}); allowed: text")
    return text


def read_json(path: Path, most: int = MAX_JSON_BYTES, error: type[InputError] = InputError, *, any_whole: bool = False) -> Any:
    """What a JSON file holds: finite numbers, whole ones of 64 bits, nested no deeper than 32.

    Raises:
        InputError: as `read_text`, or not such JSON.
    """
    return parse_json(read_text(path, most, error), str(path), error, any_whole=any_whole)


def parse_json(text: str, source: str, error: type[InputError] = InputError, *, any_whole: bool = False) -> Any:
    """The same from a text.

    Args:
        text: JSON.
        source: where it is from, for an error.
        error: what is raised.
        any_whole: take whole numbers of any size, such as a generator's state.

    Raises:
        InputError: not JSON, or numbers or a depth that are not allowed.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as problem:
        reason = "nested too deep" if isinstance(problem, RecursionError) else str(problem)[:_LONGEST_SHOWN]
        raise error(f"{source}: is not JSON, or is cut off ({reason})") from None
    waiting: list[tuple[str, int, Any]] = [("", 0, values)]
    while waiting:
        where, depth, value = waiting.pop()
        if isinstance(value, dict):
            if not all(map(is_text, value)):
                raise error(f"{source}: {where[-_LONGEST_SHOWN:]}: a key holds NUL or a lone surrogate; allowed: text")
            inside = [(f"{where}.{key}" if where else key, item) for key, item in value.items()]
        elif isinstance(value, list):
            inside = [(where, item) for item in value]
        else:
            if isinstance(value, str) and not is_text(value):
                raise error(f"{source}: {where[-_LONGEST_SHOWN:]}: {shown(value)} is not allowed; allowed: text")
            if isinstance(value, float) and not math.isfinite(value):
                raise error(f"{source}: {where[-_LONGEST_SHOWN:]}: {value} is not allowed; allowed: finite numbers, or null")
            if isinstance(value, int) and not any_whole and not -_MAX_WHOLE <= value <= _MAX_WHOLE:
                raise error(f"{source}: {where[-_LONGEST_SHOWN:]}: {shown(value)} is not allowed; allowed: up to {_MAX_WHOLE}")
            continue
        if depth >= _MAX_DEPTH:
            raise error(f"{source}: {where[:_LONGEST_SHOWN]}: nested more than {_MAX_DEPTH} deep")
        waiting += [(name, depth + 1, item) for name, item in inside]
    return values


def read_mapping(
    path: Path, most: int = MAX_JSON_BYTES, error: type[InputError] = InputError, *, any_whole: bool = False
) -> dict[str, Any]:
    """What a JSON file with keys and values holds.

    Raises:
        InputError: as `read_json`, or something else than keys and values.
    """
    values = read_json(path, most, error, any_whole=any_whole)
    if not isinstance(values, dict):
        raise error(f"{path}: holds a {type(values).__name__}; allowed: keys and values")
    version = values.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise error(
            f"{path}: schema_version: {shown(version)} is not allowed; allowed: {SCHEMA_VERSION} (a later Scalepilot may read it)"
        )
    return values


def read_record(path: Path, adapter: TypeAdapter[Record], most: int = MAX_JSON_BYTES) -> Record:
    """What a JSON file holds, as a typed record.

    Args:
        path: the file.
        adapter: of the record's type.
        most: bytes that are allowed.

    Raises:
        InputError: as `read_json`, or naming the first key that is not as it should be.
    """
    return checked_record(read_json(path, most), adapter, str(path))


def checked_record(values: Any, adapter: TypeAdapter[Record], source: str) -> Record:
    """Plain data as a typed record.

    Raises:
        InputError: naming the first key that is not as it should be, its value and what is allowed.
    """
    from pydantic import ValidationError

    try:
        return adapter.validate_python(values)
    except ValidationError as problem:
        raise InputError(f"{source}: {first_problem(problem)}") from None


def first_problem(problem: ValidationError) -> str:
    """The first of pydantic's errors in one line: key, value, what is allowed."""
    first = problem.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("missing", "missing_argument"):
        return f"{where}: is missing"
    if first["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where}: {shown(first['input'])} is not allowed; {message[0].lower()}{message[1:]}"


def read_numbers(path: Path, columns: Sequence[str], most: int = MAX_TEXT_BYTES) -> list[dict[str, float | None]]:
    """The rows of a CSV file of numbers, written a row at a time.

    Args:
        path: the file.
        columns: its header, in any order; others are not allowed.
        most: bytes that are allowed.

    Returns:
        A row each, None for an empty cell. A last line without its end is left out: its writer was killed, or still writes.

    Raises:
        InputError: as `read_text`, or naming the line that is no row of numbers.
    """
    text = read_text(path, most)
    whole = text[: text.rfind("\n") + 1]
    try:
        lines = list(csv.reader(io.StringIO(whole, newline=""), strict=True))
    except csv.Error as problem:
        raise InputError(f"{path}: is not CSV ({problem})") from None
    if not lines:
        return []
    header = lines[0]
    unknown = [name for name in header if name not in columns]
    if unknown or len({*header}) < len(header):
        raise InputError(f"{path}:1: {shown(unknown[0] if unknown else header)} is not allowed; allowed: {', '.join(columns)}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise InputError(f"{path}:{number}: {len(cells)} values; allowed: {len(header)}, one a column")
        row: dict[str, float | None] = dict.fromkeys(columns)
        for name, cell in zip(header, cells, strict=True):
            try:
                row[name] = float(cell) if cell else None
            except ValueError:
                raise InputError(f"{path}:{number}: {name}: {shown(cell)} is not allowed; allowed: a number") from None
        rows.append(row)
    return rows


def read_table(path: Path, most: int = MAX_TABLE_BYTES) -> Any:
    """A Parquet file as a `pyarrow.Table`.

    Args:
        path: the file.
        most: bytes that are allowed, of the file and of what is unpacked from it.

    Raises:
        InputError: as `read_bytes`, or not such a file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path, most)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if size > most or file.metadata.num_rows * max(1, file.metadata.num_columns) > most:
            raise InputError(f"{path}: {file.metadata.num_rows} rows, {size} bytes; allowed: up to {most} bytes")
        return file.read()
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as problem:
        raise InputError(f"{path}: is not Parquet, or is cut off ({_first_line(problem)})") from None


def table_schema(path: Path) -> Any:
    """A Parquet file's `pyarrow.Schema`: names and types of its columns, and what was noted with them.

    Raises:
        InputError: as `read_table`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path)
    try:
        return pq.read_schema(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise InputError(f"{path}: is not Parquet, or is cut off ({_first_line(problem)})") from None


def read_arrays(path: Path, most: int = MAX_TABLE_BYTES) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file; nothing of a size that a header merely claims is ever allocated.

    Args:
        path: the file.
        most: bytes that are allowed, of the file and of what is unpacked from it.

    Raises:
        InputError: as `read_bytes`, or not such a file.
    """
    data = read_bytes(path, most)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > most:
                raise InputError(f"{path}: unpacks to more than {most} bytes; allowed: up to {most}")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except _DAMAGED_ARCHIVE as problem:
        raise InputError(f"{path}: is not NumPy's .npz, or is cut off ({_first_line(problem)})") from None


# What zipfile, zlib and numpy raise of one that is damaged.
_DAMAGED_ARCHIVE = (ValueError, TypeError, KeyError, EOFError, OSError, RuntimeError, SyntaxError, zlib.error, zipfile.BadZipFile)


def _array(raw: bytes) -> NDArray[Any]:
    import numpy as np

    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    readers: Mapping[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of .npy")
    shape, fortran, dtype = readers[version](file)
    there, start = len(raw) - file.tell(), file.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != there or min(shape, default=0) < 0:
        raise ValueError(f"claims {dtype} {shape}, {there} bytes are there")
    array: np.ndarray[Any, Any] = np.frombuffer(raw, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    return array.copy()


def is_text(text: str) -> bool:
    """Whether a string can be a file's name and be written as UTF-8: no NUL, no lone surrogates."""
    return (text.isascii() and "\0" not in text) or not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def shown(value: Any) -> str:
    """A value in a message: no longer than a line."""
    if isinstance(value, int) and not -(10**_LONGEST_SHOWN) < value < 10**_LONGEST_SHOWN:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "…"


def _reason(problem: Exception) -> str:
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem) or type(problem).__name__


def _first_line(problem: Exception) -> str:
    lines = str(problem).splitlines()
    return lines[0][:_LONGEST_SHOWN] if lines else type(problem).__name__


__all__ = [
    "MAX_JSON_BYTES",
    "MAX_TABLE_BYTES",
    "MAX_TEXT_BYTES",
    "checked_record",
    "first_problem",
    "is_text",
    "parse_json",
    "read_arrays",
    "read_bytes",
    "read_json",
    "read_mapping",
    "read_numbers",
    "read_record",
    "read_table",
    "read_text",
    "shown",
    "table_schema",
]
