"""All that a node could leave behind on a user's model, and ways to disturb a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from host_run import host_nodes


class Disturbance:
    """Around every call of the UNet; does something at the given call."""

    def __init__(self, at: int, action: Callable[[], None]) -> None:
        self.left, self.action = at, action

    def __call__(self, apply_model: Callable, arguments: Any) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            self.action()
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])


def disturbed(model: ModelPatcher, at: int, action: Callable[[], None]) -> ModelPatcher:
    clone = model.clone()
    clone.set_model_unet_function_wrapper(Disturbance(at, action))
    return clone


def fail() -> None:
    raise RuntimeError("a node of someone else fails")


def cancel() -> None:
    host_nodes.interrupt_processing(True)


def structure(value: Any) -> Any:
    """Nested containers by their contents, everything else by identity."""
    if isinstance(value, dict):
        return {key: structure(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [structure(item) for item in value]
    return id(value)


def snapshot(model: ModelPatcher) -> tuple[dict[str, torch.Tensor], Any]:
    """Weights, and everything that can be hung on a model or on its UNet."""
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    hung = (
        model.model_options, model.patches, model.object_patches, model.wrappers,
        model.callbacks, model.attachments, model.injections, model.hook_patches,
        model.additional_models, model.weight_wrapper_patches,
    )  # fmt: skip
    hooks = [
        (name, structure(vars(module)[kind]))
        for name, module in model.model.named_modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    ]
    forwards = [name for name, module in model.model.named_modules() if "forward" in vars(module)]
    return weights, (structure(hung), hooks, forwards)
