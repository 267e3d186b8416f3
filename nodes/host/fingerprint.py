"""Recognising a model by its weights and LoRAs.

Weights that were stored in fp16 give the same fingerprint in every precision that they are run in;
those of a full fp32 checkpoint may give another one in bf16, where they are rounded once less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

SAMPLES = 16  # values of each weight


def fingerprint(model: Any) -> str:
    """A hash of values from all of the UNet's weights, and of the patches (LoRAs) on them."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.model.diffusion_model.named_parameters()):
        key = f"diffusion_model.{name}"
        # While the model is loaded with a LoRA, the weight as it was stands in the backup.
        original = model.backup[key].weight if key in model.backup else weight
        digest.update(f"{name} {tuple(weight.shape)}".encode() + _values(original))
    for key, patches in sorted(model.patches.items()):
        for strength, content, strength_model, *_ in patches:
            digest.update(f"{key} {strength:g} {strength_model:g}".encode())
            digest.update(b"".join(_parts(content)))
    return digest.hexdigest()[:32]


def _values(tensor: Tensor) -> bytes:
    """Some of a tensor's values, coarse enough to be alike in fp16, bf16 and fp32."""
    flat = tensor.detach().flatten()
    some = flat[:: max(len(flat) // SAMPLES, 1)][:SAMPLES].float().cpu()
    # By way of fp16: weights that were stored in it are rounded alike, wherever they come from.
    return some.half().to(torch.bfloat16).view(torch.int16).numpy().tobytes()


def _parts(content: Any) -> Iterator[bytes]:
    """Tensors and numbers of a patch: an adapter (LoRA), a difference, or a merged-in weight.

    The last is a list of that weight and of the patches on it.
    """
    content = getattr(content, "weights", content)
    if isinstance(content, Tensor):
        yield _values(content)
    elif isinstance(content, (bool, int, float, str)):
        yield f"{content} ".encode()
    elif isinstance(content, (tuple, list)):
        for part in content:
            yield from _parts(part)
