"""Everything that a source's run depends on, so that a change is found and can be named."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from comfy.hooks import Hook
from torch import Tensor

from ....p2p_core.fingerprint import Fingerprint
from ....p2p_core.inversion import Inversion
from ..fingerprint import fingerprint
from ..runs import CONTROL, Sampling, entries, own_hooks
from ..sampler.abilities import takes_noise_sampler

OWN = {CONTROL.key, f"{CONTROL.key}_guard"}
OF_CONDS = {"to_load_options", "registered_hooks"}  # what the host gathers from conditionings
NOT_CONTENT = {"uuid", "hooks", "model_conds", CONTROL.mark}


def identity(
    sampling: Sampling, source_columns: int, group: int, ours: Sequence[dict], limit: int,
    inversion: Inversion | None,
) -> dict[str, Any]:  # fmt: skip
    """What a run's sources depend on, by the words for it.

    source_columns: of the source prompt. group: rows of a seed. ours: the edited conditionings.
    limit: of self-attention injection. Values compare equal where nothing changed; functions of
    other nodes do while they are the same objects.
    """
    guider, sampler = sampling.guider, sampling.sampler
    function = sampler.sampler_function
    draws = takes_noise_sampler(function) or sampler.inpaint_options.get("random", False)
    noise = None if inversion is not None else _content(sampling.noise[::group])
    patcher = guider.model_patcher
    return {
        "the model or its LoRAs": _Model(fingerprint(patcher), str(patcher.model_dtype())),
        "patches of other nodes": (_content(_options(guider)), _content(patcher.object_patches)),
        "the prompts": _prompts(guider.conds, source_columns, ours),
        "the size or the number of pictures": tuple(sampling.noise[::group].shape),
        "the inversion": inversion and _content([inversion.latent, inversion.offsets]),
        "the noise's seed": noise,
        "the latent": _content(sampling.latent_image[::group]),
        "the mask": _content(sampling.denoise_mask),
        "the sampler": (function.__qualname__, _content(sampler.extra_options)),
        "the seed of the sampler's noise": sampling.seed if draws else None,
        "the noise levels (steps, scheduler or denoise)": tuple(sampling.sigmas),
        "the guidance (cfg)": _guidance(guider),
        "self_replace_tokens": limit,
    }


class _Model:
    """Equal for one model in one precision."""

    def __init__(self, values: Fingerprint, dtype: str) -> None:
        self.values, self.dtype = values, dtype

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Model):
            return False
        return self.dtype == other.dtype and self.values.same(other.values)

    __hash__ = None  # type: ignore[assignment]


class _Same:
    """Equal for one and the same object, which it keeps alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def _options(guider: Any) -> dict[str, Any]:
    """What other nodes have put into the model's options."""
    given = guider.model_options.items()
    options = {key: value for key, value in given if key not in OF_CONDS}
    inner = dict(options.get("transformer_options", {}))
    for kind in ("wrappers", "callbacks"):
        found = inner.get(kind, {})
        inner[kind] = {
            at: {key: value for key, value in by_key.items() if key not in OWN and value}
            for at, by_key in found.items()
        }
        inner[kind] = {at: by_key for at, by_key in inner[kind].items() if by_key}
    options["transformer_options"] = inner
    return options


def _prompts(conds: Any, columns: int, ours: Sequence[dict]) -> list:
    """All conditionings; of ours the source's row alone."""
    found = []
    for name, entry in entries(conds):
        content = {key: value for key, value in entry.items() if key not in NOT_CONTENT}
        if any(entry is own for own in ours):
            content["cross_attn"] = content["cross_attn"][:1, :columns]
            pooled = content.get("pooled_output")
            content["pooled_output"] = None if pooled is None else pooled[:1]
        hooks = own_hooks(entry.get("hooks"))
        found.append((name, _content(content), hooks and _content(hooks.hooks)))
    return found


def _guidance(guider: Any) -> tuple:
    plain = (bool, int, float, str)
    numbers = {key: value for key, value in vars(guider).items() if isinstance(value, plain)}
    return type(guider).__qualname__, tuple(sorted(numbers.items()))


def _content(value: Any) -> Any:
    """Something that compares equal for equal content: tensors by value, functions by identity."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, Hook, torch.dtype)):
        return value
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest = hashlib.sha256(flat.numpy().tobytes()).hexdigest()
        return tuple(value.shape), str(value.dtype), digest
    if isinstance(value, dict):
        return {_key(key): _content(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_content(part) for part in value]
    return _Same(value)


def _key(key: Any) -> Any:
    """A dictionary's key; hooks' references and the like count by their text."""
    return key if isinstance(key, (str, int, tuple)) else str(key)
