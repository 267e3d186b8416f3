"""Tells, before anything is started, why a file cannot be used as an SD1.5 checkpoint."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

PICKLED = {".ckpt", ".pt", ".pth"}
UNET_PREFIX = "model.diffusion_model."
TEXT_KEY = "attn2.to_k.weight"
TEXT_WIDTH = 768  # of SD1.x; SD2 has 1024, SDXL 2048
HEADER_LIMIT = 100_000_000


def check_checkpoint(path: Path) -> None:
    """Raises ValueError with one sentence when the file is no whole SD1.x checkpoint."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the checkpoint file in it.")
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    if path.suffix.lower() == ".safetensors":
        check_tensors(path, read_header(path))
    elif path.suffix.lower() in PICKLED:
        check_pickled(path)
    else:
        raise ValueError(
            f"{path.name} is not a checkpoint file; those end in .safetensors or .ckpt."
        )


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, whose data must all be there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= HEADER_LIMIT:
            raise ValueError(f"{path.name} is not a safetensors file{what_it_is(start)}.")
        if 8 + length > size:
            raise truncated(path)
        try:
            header = json.loads(file.read(length))
            entries = {name: item for name, item in header.items() if name != "__metadata__"}
            end = max((item["data_offsets"][1] for item in entries.values()), default=0)
        except (ValueError, AttributeError, KeyError, IndexError, TypeError):
            raise ValueError(f"{path.name} is not a safetensors file.") from None
    if 8 + length + end > size:
        raise truncated(path)
    return entries


def check_tensors(path: Path, entries: dict[str, Any]) -> None:
    """The tensors' names and shapes are those of an SD1.x checkpoint."""
    text_keys = [name for name in entries if name.endswith(TEXT_KEY)]
    if not any(name.startswith(UNET_PREFIX) for name in entries):
        kind = "only a part of one (a LoRA, a VAE, or a diffusers folder's UNet)"
        raise ValueError(f"{path.name} is not a whole checkpoint, {kind}.")
    widths = {entries[name]["shape"][-1] for name in text_keys if name.startswith(UNET_PREFIX)}
    if widths != {TEXT_WIDTH}:
        raise ValueError(
            f"{path.name} is not a Stable Diffusion 1.x checkpoint (text width "
            f"{sorted(widths) or 'unknown'}, expected {TEXT_WIDTH}); others are not supported yet."
        )


def check_pickled(path: Path) -> None:
    """A torch archive is a zip file, and its table of contents stands at its end."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path.name} is not a torch checkpoint{what_it_is(start)}.")
    if not zipfile.is_zipfile(path):
        raise truncated(path)
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/data.pkl") for name in archive.namelist()):
            raise ValueError(f"{path.name} is a zip file, but not a torch checkpoint.")


def truncated(path: Path) -> ValueError:
    return ValueError(f"{path.name} is truncated (an unfinished download?); fetch it again.")


def what_it_is(start: bytes) -> str:
    """A guess for the common mistakes, from a file's first bytes."""
    if not start:
        return ": it is empty"
    if start.lstrip().startswith(b"<"):
        return ": it is a web page saved under that name"
    if start.startswith(b"version"):
        return ": it is a Git LFS pointer, not the file itself"
    return ""
