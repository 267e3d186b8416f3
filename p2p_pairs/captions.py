"""Caption triples (caption, instruction, edited caption) from JSONL, CSV or Parquet files.

Every error names the file, the line (of Parquet: the row) and the column.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from p2p_core.pairs import Captions

# Our name of a column, and what known files call it.
COLUMNS = {
    "source": ("source", "caption", "input", "original_prompt"),
    "instruction": ("instruction", "edit", "edit_prompt"),
    "edited": ("edited", "edited_caption", "output", "edited_prompt"),
}
LONGEST = 2000  # letters of a text; more is a damaged file


@dataclass(frozen=True)
class Caption:
    """One triple, and what kind of edit it is where the file has a column of that name."""

    source: str
    instruction: str
    edited: str
    kind: str = ""

    @property
    def texts(self) -> Captions:
        """The triple as the recipe knows it."""
        return Captions(self.source, self.instruction, self.edited)

    @property
    def key(self) -> str:
        """The name of its pairs."""
        return self.texts.key

    def as_dict(self) -> dict[str, str]:
        """Its fields, as a line of a JSONL file has them."""
        return asdict(self)


class CaptionFile(NamedTuple):
    """captions: without repetitions. repeated: line -> the line that it repeats."""

    captions: list[Caption]
    repeated: dict[int, int]


def read_captions(path: Path) -> CaptionFile:
    """All triples of a file; ValueError for a file, line or field that is none."""
    readers = {".jsonl": _json_lines, ".csv": _csv_lines, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: captions are read from {', '.join(readers)} files.")
    first: dict[str, int] = {}
    captions, repeated = [], {}
    for number, fields in readers[path.suffix.lower()](path):
        caption = _caption(path, number, fields)
        if caption.key in first:
            repeated[number] = first[caption.key]
        else:
            first[caption.key] = number
            captions.append(caption)
    if not captions:
        raise ValueError(f"{path} holds no captions.")
    return CaptionFile(captions, repeated)


def _caption(path: Path, number: int, fields: Mapping[str, Any]) -> Caption:
    """A checked line."""
    found = {name: _text(path, number, names, fields) for name, names in COLUMNS.items()}
    if found["source"] == found["edited"]:
        raise ValueError(
            f"{path}, line {number}, column edited: it is the same as the source "
            f"({found['source']!r}), so there is nothing to edit."
        )
    kind = fields.get("kind") or ""
    if not isinstance(kind, str):
        raise ValueError(f"{path}, line {number}, column kind: expected a text, got {kind!r}.")
    return Caption(**found, kind=kind)


def _text(path: Path, number: int, names: tuple[str, ...], fields: Mapping[str, Any]) -> str:
    """The one column that has one of these names."""
    there = [name for name in names if name in fields]
    if not there:
        raise ValueError(
            f"{path}, line {number}: there is no column {names[0]} (or {', '.join(names[1:])}); "
            f"its columns are {', '.join(map(str, fields)) or 'none'}."
        )
    [name, *_], where = there, f"{path}, line {number}, column {there[0]}"
    text = fields[name]
    if not isinstance(text, str):
        raise ValueError(f"{where}: expected a text, got {text!r}.")
    text = " ".join(text.split())
    if not text:
        raise ValueError(f"{where}: it is empty.")
    if len(text) > LONGEST:
        raise ValueError(f"{where}: {len(text)} letters are more than {LONGEST}.")
    return text


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file, from 1; ValueError for one that is not UTF-8."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}, byte {error.start + 1}: it is not UTF-8."
                ) from error


def _json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            where = f"{path}, line {number}, column {error.colno}"
            raise ValueError(f"{where}: it is not JSON ({error.msg}).") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{path}, line {number}: expected an object, got {line.strip()[:40]}.")
        yield number, fields


def _csv_lines(path: Path) -> Iterator[tuple[int, dict]]:
    reader = csv.reader((line for _, line in read_lines(path)), strict=True)
    try:
        header = next(reader, [])
        for row in reader:
            if row and len(row) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(row)} columns, but the header has "
                    f"{len(header)} ({', '.join(header)})."
                )
            if row:
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: it is not CSV ({error}).") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        known = {name for names in COLUMNS.values() for name in names} | {"kind"}
        wanted = [name for name in file.schema_arrow.names if name in known]
        number = 0
        for batch in file.iter_batches(columns=wanted):
            for number, fields in enumerate(batch.to_pylist(), start=number + 1):  # noqa: B020
                yield number, fields
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: it cannot be read as Parquet ({error}).") from error
