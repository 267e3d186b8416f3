"""Inversions as files: what is in one, and what must be right about it.

A safetensors file with the tensors of an Inversion as float32, and its texts as metadata. It holds
the source prompt's encoding, but neither the prompt's words nor the workflow.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import folder_paths
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ....p2p_core.fingerprint import Fingerprint
from ....p2p_core.inversion import Inversion
from .places import FORMAT, SUFFIX, checked_name, missing, place

VERSION = "2"
METHODS = ("ddim", "noise")
TENSORS = ("latent", "start", "sigmas", "offsets")
MODEL_TENSORS = ("model_values", "model_half_ulps")


def save_inversion(inversion: Inversion, name: str) -> dict[str, str]:
    """Write an inversion into the host's output folder; returns where: filename, subfolder, type.

    name: of the file, also with folders ("p2p/cat"); a number and the suffix are added, so nothing
    is overwritten. Raises ValueError for a name that is none and for an inversion with NaNs.
    """
    name = checked_name(name)
    if why := _defect(inversion):
        raise ValueError(f"The inversion cannot be saved: {why}. Invert the picture again.")
    try:
        folder, stem, count, subfolder, _ = folder_paths.get_save_image_path(
            name, folder_paths.get_output_directory()
        )
        filename = f"{stem}_{count:05}_{SUFFIX}"
        _write(inversion, Path(folder), filename)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"The inversion could not be saved as {name!r}: {error}. Check the output folder's "
            "free space and permissions, or choose another name."
        ) from error
    return {"filename": filename, "subfolder": subfolder, "type": "output"}


def load_inversion(file: str) -> Inversion:
    """The inversion in a file of the input folder, or of the output folder ("cat [output]").

    Raises ValueError for a file that is missing, damaged, or something else than an inversion.
    """
    path = place(file)
    if why := missing(file):
        raise ValueError(why)
    try:
        with safe_open(path, framework="pt", device="cpu") as content:
            metadata = content.metadata() or {}
            _check_format(file, metadata)
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"The file {file!r} is damaged, cut short, or no safetensors file at all: {error}. "
            "Choose a file that P2P Save Inversion wrote."
        ) from error
    return _inversion(file, tensors, metadata)


def _write(inversion: Inversion, folder: Path, filename: str) -> None:
    """Write a file that is there either as a whole or not at all."""
    tensors = {key: getattr(inversion, key) for key in (*TENSORS, "prompt")}
    if inversion.model is not None:
        parts = inversion.model.values, inversion.model.half_ulps
        tensors |= dict(zip(MODEL_TENSORS, parts, strict=True))
    stored = {
        key: value.detach().float().cpu().contiguous().clone()
        for key, value in tensors.items()
        if value is not None
    }
    temporary = folder / f".{uuid4().hex}.tmp"
    try:
        save_file(stored, temporary, _metadata(inversion))
        os.replace(temporary, folder / filename)
    finally:
        temporary.unlink(missing_ok=True)


def _metadata(inversion: Inversion) -> dict[str, str]:
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "method": inversion.method,
        "steps": str(inversion.steps),
        "latent_size": " x ".join(map(str, inversion.latent.shape)),
    }
    if inversion.model is not None:
        metadata["model"] = inversion.model.kind
    if inversion.residual is not None:
        metadata["residual"] = repr(float(inversion.residual))
    return metadata


def _check_format(file: str, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"The file {file!r} is a safetensors file, but holds no inversion. Choose a file that "
            "P2P Save Inversion wrote."
        )
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"The file {file!r} has version {metadata.get('version')!r} of the format, but this "
            f"pack reads version {VERSION!r}. Update the pack if the file's is the newer one; "
            "otherwise invert the picture again."
        )


def _inversion(file: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Inversion:
    why = _incomplete(tensors, metadata)
    if why is None:
        parts: dict[str, Any] = {"method": metadata["method"]}
        if "model" in metadata:
            values, half_ulps = (tensors.pop(key) for key in MODEL_TENSORS)
            parts["model"] = Fingerprint(values, half_ulps, metadata["model"])
        if "residual" in metadata:
            parts["residual"] = float(metadata["residual"])
        inversion = Inversion(**tensors, **parts)
        why = _defect(inversion)
        if why is None:
            return inversion
    raise ValueError(
        f"The inversion in {file!r} is damaged: {why}. Save it again, or invert the picture again."
    )


def _incomplete(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str | None:
    """What keeps the content of a file from being an Inversion."""
    expected = (*TENSORS, *(MODEL_TENSORS if metadata.get("model") else ()))
    lacking = [key for key in expected if key not in tensors]
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    others = [key for key in tensors if key not in (*expected, "prompt")]
    if others:
        return f"it holds an unknown tensor {others[0]!r}"
    for key, value in tensors.items():
        if value.dtype != torch.float32:
            return f"{key} should be float32, but is {value.dtype}"
    if metadata.get("method") not in METHODS:
        return f"its method should be one of {', '.join(METHODS)}, got {metadata.get('method')!r}"
    if metadata["method"] == "ddim" and not metadata.get("model"):
        return "it does not say which model it was made with"
    try:
        float(metadata.get("residual", "0"))
    except ValueError:
        return f"its residual {metadata['residual']!r} is no number"
    return None


def _defect(inversion: Inversion) -> str | None:
    """What is wrong with the numbers of an inversion; None if it can be used."""
    latent, sigmas = inversion.latent, inversion.sigmas
    if latent.ndim != 4 or not latent.numel():
        return f"latent should have a shape (B, C, h, w), but has {tuple(latent.shape)}"
    if sigmas.ndim != 1 or len(sigmas) < 2:
        return f"sigmas should be two levels or more, but has the shape {tuple(sigmas.shape)}"
    expected = {"start": tuple(latent.shape), "offsets": (len(sigmas), *latent.shape)}
    for key, shape in expected.items():
        if (got := tuple(getattr(inversion, key).shape)) != shape:
            return f"{key} should have the shape {shape}, but has {got}"
    prompt = inversion.prompt
    if prompt is not None and (prompt.ndim != 3 or prompt.shape[0] not in (1, len(latent))):
        return f"prompt should have a shape (1, T, D), but has {tuple(prompt.shape)}"
    model = inversion.model
    if model is not None and not bool((model.values.isfinite() & model.half_ulps.isfinite()).all()):
        return "the values of its model are not finite"
    for key in (*TENSORS, "prompt"):
        value = getattr(inversion, key)
        if value is not None and not bool(value.isfinite().all()):
            return f"{key} holds values that are not finite"
    if sigmas[-1] != 0 or not bool((sigmas[:-1] > sigmas[1:]).all()):
        return "sigmas do not descend to 0"
    if bool(inversion.offsets[-1].any()):
        return "its path does not end at the picture"
    return None
