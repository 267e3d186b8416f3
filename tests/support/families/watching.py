"""Running a model once through the host, and asking the pack's probe about that very call."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor


def pack(name: str) -> ModuleType:
    """A module of the pack as the host has loaded it: pack("nodes.host.families.probe")."""
    from host_run import REPOSITORY

    root = next(
        key for key, module in list(sys.modules.items())
        if getattr(module, "__file__", None) == str(REPOSITORY / "__init__.py")
    )  # fmt: skip
    return importlib.import_module(f"{root}.{name}")


@torch.inference_mode()
def ask(
    model: ModelPatcher, positive: list, latent: Tensor, question: Callable[..., Any], **extra: Any
) -> Any:
    """question(BaseModel, Inputs, transformer_options) during a run's first call of the model."""
    answers: list[Any] = []
    inputs = pack("nodes.host.families.inputs").Inputs

    def wrapper(
        executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None,
        control: Any = None, transformer_options: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        if not answers:
            given = inputs(x, t, c_concat, c_crossattn, kwargs)
            answers.append(question(executor.class_obj, given, transformer_options))
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "question", wrapper)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(5))
    comfy.sample.sample(
        model, noise, 1, 1.0, "euler", "simple", positive, positive, latent, disable_pbar=True,
        seed=1, **extra,
    )  # fmt: skip
    return answers[0]


def layout(model: ModelPatcher, positive: list, latent: Tensor) -> Any:
    """The layout that the pack's door finds, checked."""
    return ask(model, positive, latent, pack("nodes.host.families.layouts").layout_of)
