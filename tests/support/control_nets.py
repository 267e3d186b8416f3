"""A ControlNet in miniature: the host's own class, random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import comfy.model_management
import torch
from comfy.cldm.cldm import ControlNet as ControlNetModel
from comfy.controlnet import ControlNet
from comfy.model_patcher import ModelPatcher
from host_run import Graph, Link
from tiny_model import UNET, randomize


@cache
def control_net() -> ControlNet:
    device = comfy.model_management.get_torch_device()
    config = {key: value for key, value in UNET.items() if key != "out_channels"}
    model = ControlNetModel(hint_channels=3, device=device, **config)
    randomize(model, 6, {"zero_convs": 0.3})
    return ControlNet(model, load_device=device)


@cache
def _net_of(unet: tuple, seed: int) -> ControlNet:
    device = comfy.model_management.get_torch_device()
    model = ControlNetModel(hint_channels=3, device=device, **_config(unet))
    randomize(model, 6 + seed, {"zero_convs": 0.3})
    return ControlNet(model, load_device=device)


def control_net_of(seed: int, model: ModelPatcher) -> ControlNet:
    """A ControlNet for the model's family: the host makes it from the UNet's own sizes."""
    config = model.model.model_config.unet_config
    hashable = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return _net_of(tuple(sorted(hashable.items(), key=lambda item: item[0])), seed)


def _config(unet: tuple) -> dict[str, Any]:
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in unet}
    config.pop("out_channels", None)
    config["in_channels"] = 4
    return config


def apply_control_net(
    graph: Graph, positive: Link, negative: Link, seed: int = 8, net: Link | None = None,
    start: float = 0.0, end: float = 1.0, hints: int = 1,
) -> tuple:  # fmt: skip
    """Both conditionings under a ControlNet with random hints of 64 x 64 pixels."""
    hint = torch.rand(hints, 64, 64, 3, generator=torch.Generator().manual_seed(seed))
    node = graph.add(
        "ControlNetApplyAdvanced", positive=positive, negative=negative,
        control_net=net or graph.value(control_net()), image=graph.value(hint), strength=0.6,
        start_percent=start, end_percent=end,
    )  # fmt: skip
    return node[0], node[1]
