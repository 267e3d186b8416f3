"""A ControlNet in miniature: the host's own class, random weights."""

from __future__ import annotations

from functools import cache

import comfy.model_management
import torch
from comfy.cldm.cldm import ControlNet as ControlNetModel
from comfy.controlnet import ControlNet
from host_run import Graph, Link
from tiny_model import UNET, randomize


@cache
def control_net() -> ControlNet:
    device = comfy.model_management.get_torch_device()
    config = {key: value for key, value in UNET.items() if key != "out_channels"}
    model = ControlNetModel(hint_channels=3, device=device, **config)
    randomize(model, 6, {"zero_convs": 0.3})
    return ControlNet(model, load_device=device)


def apply_control_net(graph: Graph, positive: Link, negative: Link, seed: int = 8) -> tuple:
    """Both conditionings under a ControlNet with a random hint of 64 x 64 pixels."""
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(seed))
    node = graph.add(
        "ControlNetApplyAdvanced", positive=positive, negative=negative,
        control_net=graph.value(control_net()), image=graph.value(hint), strength=0.6,
        start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    return node[0], node[1]
