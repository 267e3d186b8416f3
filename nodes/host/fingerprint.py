"""Recognising a model of the host by its weights and LoRAs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ...p2p_core.fingerprint import Fingerprint, take_values

SAMPLES = 16  # values of each weight


def fingerprint(model: Any) -> Fingerprint:
    """Values from all of the network's weights, and from the patches (LoRAs) on them."""
    weights, kinds = [], []
    for name, weight in sorted(model.model.diffusion_model.named_parameters()):
        key = f"diffusion_model.{name}"
        # While the model is loaded with a LoRA, the weight as it was stands in the backup.
        weights.append(model.backup[key].weight if key in model.backup else weight)
        kinds.append(f"{name} {tuple(weight.shape)}")
    for key, patches in sorted(model.patches.items()):
        for strength, content, strength_model, *_ in patches:
            kinds.append(f"{key} {strength:g} {strength_model:g}")
            for part in _parts(content):
                is_weight = isinstance(part, Tensor)
                weights += [part] if is_weight else []
                kinds.append(str(tuple(part.shape)) if is_weight else part)
    values, half_ulps = take_values(weights, SAMPLES)
    digest = hashlib.sha256("\n".join(kinds).encode()).hexdigest()[:32]
    return Fingerprint(values, half_ulps, digest)


def _parts(content: Any) -> Iterator[Tensor | str]:
    """Tensors and numbers of a patch: an adapter (LoRA), a difference, or a merged-in weight.

    The last is a list of that weight and of the patches on it.
    """
    content = getattr(content, "weights", content)
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, (bool, int, float, str)):
        yield str(content)
    elif isinstance(content, (tuple, list)):
        for part in content:
            yield from _parts(part)
