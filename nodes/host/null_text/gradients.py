"""Gradients through the host's networks, from inside a node.

Nodes run in inference mode, and so do the loaders: a backward pass can save neither such inputs nor
such weights. Ordinary copies of the weights are made as each layer uses them, by way of the
functions that the host applies to weights on their way into a layer. Nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..batch import origin
from ..patches import network_patches


def training_clone(model: Any) -> Any:
    """A clone of the model whose attention has a gradient; not all of the host's kinds have one."""
    clone = model.clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = _attention
    return clone


@contextmanager
def differentiable(network: nn.Module) -> Iterator[None]:
    """Within it the loaded network has a gradient by its inputs; its weights need none."""
    functions = [
        (module, name)
        for module in network.modules()
        for name in ("weight_function", "bias_function")
        if hasattr(module, name)
    ]
    try:
        for module, name in functions:
            setattr(module, name, [_ordinary, *getattr(module, name)])
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, name in functions:
            setattr(module, name, [f for f in getattr(module, name) if f is not _ordinary])


@contextmanager
def readable_errors(model: Any) -> Iterator[None]:
    """Within it a backward pass that another node's patch makes impossible says so."""
    try:
        yield
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        names = [
            origin(patch)
            for patches in network_patches(model)["patches"].values()
            for patch in patches
        ]
        raise ValueError(
            f"Another node's patch of the network ({', '.join(names)}) overwrites what it is "
            "given, so null-text optimisation cannot go back through it. Remove that node (FreeU "
            "and the like) here and before P2P DDIM Invert, or set inner_steps to 0."
        ) from error


@contextmanager
def checkpointed(network: Any, wanted: bool) -> Iterator[None]:
    """Within it the layers of a UNet recompute their insides in the backward pass, if wanted.

    Less memory, for one more forward pass with every gradient.
    """
    blocks = [*network.input_blocks, network.middle_block, *network.output_blocks]
    layers = [layer for block in blocks if block is not None for layer in block] if wanted else []
    replaced = [(layer, vars(layer).get("forward")) for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(_recomputed, layer.forward)
        yield
    finally:
        for layer, before in replaced:
            del layer.forward
            if before is not None:
                layer.forward = before


def _attention(_preferred: Callable, *args: Any, **kwargs: Any) -> Tensor:
    return attention_pytorch(*args, **kwargs)


def _ordinary(weight: Tensor) -> Tensor:
    """A copy that is no inference tensor. The host may reuse the memory of the original."""
    return weight.clone()


def _recomputed(forward: Callable, *args: Any, **kwargs: Any) -> Tensor:
    """The layer's output; what its options say now is what they say in the backward pass."""
    kept = [_copied(value) for value in args]

    def run(*values: Any) -> Tensor:
        return forward(*map(_copied, values), **kwargs)

    return checkpoint(run, *kept, use_reentrant=False)


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
