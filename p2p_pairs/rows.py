"""One caption's result as a small Parquet table: its kept pairs, and in the metadata what happened.

Columns are named as in the published data set of InstructPix2Pix; the schema carries the note by
which `datasets.load_dataset` knows which columns are pictures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PICTURES = ("original_image", "edited_image")
TEXTS = ("key", "original_prompt", "edit_prompt", "edited_prompt", "kind")
NUMBERS = {"sample": "int64", "seed": "int64"}
SHARES = ("cross_share", "self_share", "cfg")
OUTCOME = b"p2p_outcome"


@dataclass(frozen=True)
class Outcome:
    """What became of a caption. reasons: how many pairs were refused for what.

    error: why it could not be made, None if it was.
    """

    key: str
    tried: int = 0
    kept: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None


def schema(scores: Sequence[str]) -> pa.Schema:
    """Of every table; scores: the names of the scorer's numbers."""
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds: dict[str, pa.DataType] = {name: pa.string() for name in TEXTS}
    kinds |= {name: picture for name in PICTURES}
    kinds |= {name: pa.int64() for name in NUMBERS}
    kinds |= {name: pa.float64() for name in (*SHARES, *score_columns(scores))}
    features: dict[str, Any] = {
        name: {"_type": "Image"}
        if name in PICTURES
        else {"dtype": str(kind).replace("double", "float64"), "_type": "Value"}
        for name, kind in kinds.items()
    }
    note = json.dumps({"info": {"features": features}})
    return pa.schema(list(kinds.items()), metadata={"huggingface": note})


def score_columns(scores: Sequence[str]) -> list[str]:
    """The columns of a scorer's numbers."""
    return [f"score_{name}" for name in scores]


def png(picture: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 without loss."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def part_bytes(rows: Sequence[dict], outcome: Outcome, scores: Sequence[str]) -> bytes:
    """The file of one caption: its rows, maybe none, and its outcome."""
    table = pa.Table.from_pylist(list(rows), schema=schema(scores))
    note = {OUTCOME: json.dumps(asdict(outcome)).encode()}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **note}), file)
    return file.getvalue()


def read_part(path: Any) -> tuple[pa.Table, Outcome]:
    """A part's rows and outcome; ArrowException or OSError if it is damaged."""
    table = pq.read_table(path)
    return table, _outcome(table.schema.metadata)


def read_outcome(path: Any) -> Outcome:
    """A part's outcome alone."""
    return _outcome(pq.read_schema(path).metadata)


def _outcome(metadata: Mapping[bytes, bytes]) -> Outcome:
    return Outcome(**json.loads(metadata[OUTCOME]))
