"""The data set's files: Parquet with pictures inside, and WebDataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from webdataset.writer import TarWriter

from p2p_pairs.files import write_whole
from p2p_pairs.rows import PICTURES

ROW_GROUP = 64  # rows that a reader must load at once
SUFFIXES = {"parquet": "parquet", "webdataset": "tar"}


def shard_path(folder: Path, format_: str, number: int, count: int) -> Path:
    """Where a shard lies, as the Hugging Face hub names them."""
    return folder / format_ / f"train-{number:05d}-of-{count:05d}.{SUFFIXES[format_]}"


def write_shard(
    folder: Path, formats: Sequence[str], number: int, count: int, table: pa.Table
) -> None:
    """A block's pairs in every format; no file where there are none."""
    writers: dict[str, Callable[[pa.Table, BinaryIO], None]] = {
        "parquet": _write_parquet,
        "webdataset": _write_webdataset,
    }
    for format_ in formats:
        path, write = shard_path(folder, format_, number, count), writers[format_]
        if len(table):
            write_whole(path, lambda file, write=write: write(table, file))
        else:
            path.unlink(missing_ok=True)


def _write_parquet(table: pa.Table, file: BinaryIO) -> None:
    pq.write_table(table, file, row_group_size=ROW_GROUP)


def _write_webdataset(table: pa.Table, file: BinaryIO) -> None:
    """key.original_image.png, key.edited_image.png, key.json with everything else."""
    with TarWriter(file, encoder=False, mtime=0) as writer:
        for row in table.to_pylist():
            pictures = {f"{name}.png": row.pop(name)["bytes"] for name in PICTURES}
            about = json.dumps(row, ensure_ascii=False).encode()
            writer.write({"__key__": row["key"], **pictures, "json": about})
