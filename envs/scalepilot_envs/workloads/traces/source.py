"""A file as text, whatever it is packed and written in; and what it looks like where it is no trace."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from scalepilot_envs.workloads.traces.rows import TraceError

CHUNK_BYTES = 2_000_000
HEAD_BYTES = 256_000
# A file that unpacks to more than this, and to so many times its size, holds nothing that a person measured.
_BOMB_BYTES, _BOMB_TIMES = 64_000_000, 250
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "Zstandard"}
_LOOKS = {
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls); save it as CSV",
    b"SQLite format 3": "an SQLite database",
    b"Obj\x01": "an Avro file",
    b"\x89HDF": "an HDF5 file",
    b"ORC": "an ORC file",
    b"ARROW1": "an Arrow file; save it as Parquet or CSV",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"{\\rtf": "an RTF document",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}


class Source:
    """An open file of text, its beginning already read.

    Attributes:
        name: of the file, in messages.
        packed: how it is packed, or "".
        encoding: what its text is written in.
        head: its first characters, whole lines where there are any.
        raw_head: the same as bytes.
        size: of the file on disk, bytes.
    """

    def __init__(self, name: str, size: int, file: BinaryIO) -> None:
        self.name, self.size = name, size
        start = file.read(512)
        file.seek(0)
        self._file, self.packed = self._unpacked(file, start)
        self._num_read = 0
        raw = self._read(HEAD_BYTES)
        if len(raw) < HEAD_BYTES or b"\n" not in raw:
            more = self._read(CHUNK_BYTES) if len(raw) == HEAD_BYTES else b""
            raw += more
        self.encoding, self.raw_head = _encoding(raw)
        self._rest = self.raw_head
        self.head = self.decode(self.raw_head)

    def chunks(self) -> Iterator[bytes]:
        """Its bytes as UTF-8 or one byte a character, some megabytes at a time."""
        if self.encoding.startswith("utf-16"):
            yield from self._recoded()
            return
        rest, self._rest = self._rest, b""
        yield rest
        while data := self._read(CHUNK_BYTES):
            yield data

    def lines(self) -> Iterator[bytes]:
        """Its lines, without their ends; a line of megabytes comes in pieces."""
        rest = b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.rstrip(b"\r") for line in whole)
            if len(rest) > 2 * CHUNK_BYTES:
                yield rest
                rest = b""
        if rest:
            yield rest.rstrip(b"\r")

    def whole(self, most: int) -> str:
        """All its text.

        Raises:
            TraceError: longer than `most` bytes.
        """
        parts, size = [], 0
        for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > most:
                raise TraceError(f"{self.name}: is more than {most / 1e6:.0f} MB of JSON; allowed: so much, or the same as CSV")
        return self.decode(b"".join(parts))

    def decode(self, data: bytes) -> str:
        """Text of bytes: UTF-8, else one byte a character as in western Europe."""
        if self.encoding.startswith("utf-16"):
            return data.decode(self.encoding, errors="replace")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and data is self.raw_head:
                return data[: error.start].decode("utf-8")
            return data.decode("latin-1")

    def _recoded(self) -> Iterator[bytes]:
        import codecs

        decoder = codecs.getincrementaldecoder(self.encoding)(errors="replace")
        rest, self._rest, self.encoding = self._rest, b"", "utf-8"
        yield decoder.decode(rest).encode()
        while data := self._read(CHUNK_BYTES):
            yield decoder.decode(data).encode()
        yield decoder.decode(b"", final=True).encode()

    def _read(self, count: int) -> bytes:
        try:
            data = self._file.read(count)
        except (EOFError, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile) and error.errno is not None:
                raise
            raise TraceError(
                f"{self.name}: is {self.packed or 'a file'} that is cut off or damaged ({str(error)[:100]})"
            ) from None
        except Exception as error:  # noqa: BLE001 - zlib.error is not exported by gzip
            raise TraceError(f"{self.name}: is {self.packed or 'a file'} that is damaged ({str(error)[:100]})") from None
        self._num_read += len(data)
        if self.packed and self._num_read > max(_BOMB_BYTES, _BOMB_TIMES * self.size):
            raise TraceError(
                f"{self.name}: {self.packed} unpacks to more than {_BOMB_TIMES} times its size; allowed: a file that was measured"
            )
        return data

    def _unpacked(self, file: BinaryIO, start: bytes) -> tuple[BinaryIO, str]:
        packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), "")
        if packed == "gzip":
            return cast(BinaryIO, gzip.GzipFile(fileobj=file)), packed
        if packed == "bzip2":
            return cast(BinaryIO, bz2.BZ2File(file)), packed
        if packed == "xz":
            return cast(BinaryIO, lzma.LZMAFile(file)), packed
        if packed == "Zstandard":
            return self._zstandard(file), packed
        if start.startswith(b"PK\x03\x04"):
            return self._zip(file), "zip"
        return file, ""

    def _zstandard(self, file: BinaryIO) -> BinaryIO:
        try:
            import pyarrow as pa
        except ImportError:
            raise TraceError(f"{self.name}: is packed with Zstandard; allowed: unpack it (zstd -d), or gzip") from None
        return cast(BinaryIO, pa.input_stream(file, compression="zstd"))

    def _zip(self, file: BinaryIO) -> BinaryIO:
        try:
            archive = zipfile.ZipFile(file)
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            if any(name.startswith("xl/") for name in names):
                raise TraceError(f"{self.name}: looks like an Excel workbook (.xlsx); allowed: save the sheet as CSV")
            if any(name.startswith(("word/", "ppt/")) for name in names):
                raise TraceError(f"{self.name}: looks like an Office document; allowed: CSV, Parquet or JSON")
            if "content.xml" in names:
                raise TraceError(f"{self.name}: looks like an OpenDocument file; allowed: save the sheet as CSV")
            names = [name for name in names if not name.startswith("__MACOSX/")]
            if len(names) != 1:
                raise TraceError(f"{self.name}: is a zip of {len(names)} files; allowed: one file in it, or unpack it")
            return cast(BinaryIO, archive.open(names[0]))
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise TraceError(f"{self.name}: is a zip that cannot be read ({str(error)[:100]})") from None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file open for reading bytes.

    Raises:
        TraceError: there is none, or it cannot be read.
    """
    try:
        if path.is_dir():
            raise TraceError(f"{path}: cannot be read (is a directory)")
        if path.exists() and not path.is_file():
            raise TraceError(f"{path}: cannot be read (is not a regular file)")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror or error})") from None


def begins_json(text: str) -> bool:
    """Whether a text begins as JSON does, and not as a log in brackets."""
    return re.match(r"\s*(?:\{\s*(?:[\"}]|$)|\[\s*(?:[\[{\]\"\d-]|$|true|false|null))", text) is not None


def looks_like(source: Source) -> str:
    """In a few words, what a file is that no dialect knows."""
    raw, text = source.raw_head, source.head.strip()
    if not text.strip("\x00"):
        return "an empty file" if not raw else "a file of blanks"
    for magic, words in _LOOKS.items():
        if raw.startswith(magic):
            return words
    if raw[257:262] == b"ustar":
        return "a tar archive; unpack it"
    lowered = text[:2000].lower()
    if lowered.startswith("<"):
        if "<!doctype html" in lowered or "<html" in lowered:
            title = text.split("<title>")[1].split("</title>")[0].strip()[:60] if "<title>" in text[:5000] else ""
            return f"an HTML page{f' ({title!r})' if title else ''}, such as a login or error page in place of the data"
        return "XML"
    controls = sum(raw[:4000].count(bytes([code])) for code in (*range(9), *range(14, 32)))
    if b"\x00" in raw[:4000] or controls > 0.05 * min(len(raw), 4000):
        return "a binary file"
    if begins_json(text):
        return _looks_of_json(text)
    rows = text.splitlines()
    first = rows[0][:60]
    if first.startswith("Type,Name,Request Count"):
        return "Locust's totals, without times; its _stats_history.csv has them"
    mark = next((mark for mark in ",;\t" if mark in first), None)
    if mark and len(rows) > 2 and rows[0].count(mark) == rows[1].count(mark) == rows[2].count(mark):
        shown = ", ".join(cell.strip(' "')[:30] for cell in first.split(mark))
        return f"a table without a column of dates and times that is known (columns {shown})"
    return f"text that begins {first!r}"


def _looks_of_json(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "JSON that is cut off or damaged"
    if isinstance(value, dict):
        return f"JSON with the keys {', '.join(map(str, value))[:80]}"
    return f"a JSON list of {len(value)}" if isinstance(value, list) else "JSON"


def _encoding(raw: bytes) -> tuple[str, bytes]:
    """The encoding that a mark or its zeros tell, and the bytes behind the mark."""
    if raw.startswith(b"\xef\xbb\xbf"):
        return "utf-8", raw[3:]
    if raw.startswith(b"\xff\xfe"):
        return "utf-16-le", raw[2:]
    if raw.startswith(b"\xfe\xff"):
        return "utf-16-be", raw[2:]
    sample = raw[:400]
    if len(sample) >= 8 and sample[1::2].count(0) > 0.9 * len(sample[1::2]) and sample[0::2].count(0) == 0:
        return "utf-16-le", raw
    if len(sample) >= 8 and sample[0::2].count(0) > 0.9 * len(sample[0::2]) and sample[1::2].count(0) == 0:
        return "utf-16-be", raw
    return "utf-8", raw
