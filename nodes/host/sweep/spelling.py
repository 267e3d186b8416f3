"""A digest of everything that pictures depend on, the same on another day."""

from __future__ import annotations

import hashlib
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from ....p2p_core.fingerprint import take_values
from ..fingerprint import fingerprint

MOST_PARTS = 20_000
PLAIN = (bool, int, float, str)
SAMPLES = 64  # values of each of a VAE's weights
RUN_OWN = {"uuid", "hooks_to_load", "registered_hooks", "to_load_options"}


class Unspelled(Exception):
    """Something whose content cannot be told."""


def digest(value: Any) -> str | None:
    """A short text that is equal for equal content; None where that cannot be told."""
    try:
        return hashlib.sha256(repr(_Speller().spell(value)).encode()).hexdigest()[:32]
    except (Unspelled, RecursionError, ValueError):  # the last: a closure that is not filled yet
        return None


def model_content(model: Any) -> list[Any]:
    """What a MODEL is, and what other nodes have put on it."""
    weights = fingerprint(model)
    options = model.model_options
    # A node's object in place of the model's own, such as another noise schedule.
    objects = {name: model.object_patches[name] for name in sorted(model.object_patches)}
    dtype = str(model.model_dtype())
    return [weights.values, weights.kind, dtype, type(model.model).__name__, options, objects,
            model.additional_models, model.callbacks, model.wrappers]  # fmt: skip


def vae_content(vae: Any) -> list[Any]:
    """What a VAE is, by some of its weights."""
    stage = getattr(vae, "first_stage_model", None)
    if not isinstance(stage, torch.nn.Module):
        return [vae]
    weights = [weight for _, weight in sorted(stage.named_parameters())]
    return [type(stage).__name__, take_values(weights, SAMPLES)[0]]


class _Speller:
    """Content as nested lists of texts and numbers; Unspelled for what has none to be seen."""

    left = MOST_PARTS

    def spell(self, value: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Unspelled
        if value is None or isinstance(value, (bool, int, float, str, bytes)):
            return value
        if isinstance(value, (torch.dtype, torch.device, type)):
            return str(value)
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return [*value.shape, str(value.dtype), hashlib.sha256(flat.numpy().data).hexdigest()]
        if isinstance(value, dict):
            parts = ((str(key), part) for key, part in value.items() if key not in RUN_OWN)
            return [(key, self.spell(part)) for key, part in sorted(parts, key=lambda p: p[0])]
        if isinstance(value, (list, tuple)):
            return [self.spell(part) for part in value]
        if isinstance(value, (set, frozenset)):
            return sorted((self.spell(part) for part in value), key=repr)
        return self._object(value)

    def _object(self, value: Any) -> Any:
        """A function with what it closes over, a method with its object, one with its fields."""
        if isinstance(value, partial):
            return ["partial", *map(self.spell, (value.func, value.args, value.keywords))]
        if isinstance(value, MethodType):
            return [self.spell(value.__func__), self.spell(value.__self__)]
        if isinstance(value, FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            given = [value.__defaults__, value.__kwdefaults__, cells]
            return [value.__module__, value.__qualname__, self.spell(given)]
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, torch.nn.Module):
            plain = {name: part for name, part in vars(value).items() if isinstance(part, PLAIN)}
            return [kind, self.spell({**value.state_dict(), **plain})]
        if not isinstance(type(value).__init__, FunctionType) or not hasattr(value, "__dict__"):
            raise Unspelled  # it may keep its content where Python does not see it
        return [kind, self.spell(vars(value))]
