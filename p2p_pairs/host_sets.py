"""A data set for ComfyUI's own dataset and training nodes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from headless import Pack, load_pack
from p2p_pairs.rows import PICTURES


def stored_rows(folder: Path, limit: int | None = None) -> Iterator[dict]:
    """The pairs of a data set in order; ValueError if there are none in Parquet files."""
    shards = sorted((folder / "parquet").glob("*.parquet"))
    if not shards:
        raise ValueError(f"{folder}: there are no pairs in parquet/*.parquet.")
    left = limit
    for path in shards:
        for row in pq.read_table(path).to_pylist():
            if left == 0:
                return
            left = None if left is None else left - 1
            yield row


def write_folders(rows: Iterator[dict], folder: Path) -> int:
    """original/KEY.png and edited/KEY.png, each with the instruction in KEY.txt; their number.

    For Load Image-Text (from Folder), which reads one such folder.
    """
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007
        for name in PICTURES:
            inside = folder / name.removesuffix("_image")
            inside.mkdir(parents=True, exist_ok=True)
            (inside / f"{row['key']}.png").write_bytes(row[name]["bytes"])
            text = f"{row['edit_prompt']}\n"
            (inside / f"{row['key']}.txt").write_text(text, encoding="utf-8")
    return count


def encoded(rows: Iterator[dict], pack: Pack, vae: Any, clip: Any) -> tuple[list[dict], list[list]]:
    """(latents, conditionings) for Train LoRA on a model with the source in further channels.

    A latent is that of the picture after; its conditioning is the instruction, with the latent of
    the picture before as concat_latent_image (arXiv:2211.09800, section 3.2).
    """
    latents, conditionings = [], []
    for row in rows:
        before, after = (vae.encode(pixels(row, name)).float().cpu() for name in PICTURES)
        latents.append({"samples": after})
        conditionings.append(
            [[cross, {**more, "concat_latent_image": before}]
             for cross, more in pack.text(clip, row["edit_prompt"])]
        )  # fmt: skip
    return latents, conditionings


def pixels(row: dict, name: str) -> Tensor:
    """A picture of a row as an IMAGE (1, H, W, 3)."""
    try:
        picture = Image.open(io.BytesIO(row[name]["bytes"])).convert("RGB")
    except OSError as error:
        raise ValueError(f"Pair {row['key']}: {name} cannot be read ({error}).") from error
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)[None]


def save_training_set(
    pack: Pack, latents: Sequence[dict], conditionings: Sequence[list], name: str, shard: int = 1000
) -> None:
    """By the host's Save Training Dataset, for its Load Training Dataset."""
    load_extra(pack, "dataset")
    node = pack.host.NODE_CLASS_MAPPINGS["SaveTrainingDataset"]
    node.execute(list(latents), list(conditionings), [name], [shard])


def load_extra(pack: Pack, name: str) -> None:
    """Register a file of the host's own further nodes."""
    extras = Path(pack.host.__file__).parent / "comfy_extras"
    load_pack(extras / f"nodes_{name}.py", "comfy_extras")
