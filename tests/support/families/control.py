"""ControlNets of transformers in miniature: true checkpoints' keys, the host's own loader."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import comfy.cldm.mmdit
import comfy.controlnet
import comfy.ldm.flux.controlnet
import comfy.ldm.qwen_image.controlnet
import comfy.ldm.wan.vae
import comfy.ops
import comfy.sd
import comfy.taesd.taesd
import comfy.utils
import torch
from host_run import Graph, Link
from tiny_model import randomize
from torch import Tensor

from . import streams
from .tiny import Family

SIZES: dict[Family, tuple[Any, dict[str, Any]]] = {
    streams.FLUX_DEV: (comfy.ldm.flux.controlnet.ControlNetFlux, {}),
    streams.SD3: (comfy.cldm.mmdit.ControlNet, {"num_blocks": 1}),
    streams.QWEN_IMAGE: (comfy.ldm.qwen_image.controlnet.QwenImageControlNetModel, {}),
}
WAN = {
    "dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
    "temperal_downsample": [False, True, True], "dropout": 0.0,
}  # fmt: skip


@cache
def control_net(family: Family) -> comfy.controlnet.ControlNet:
    """A ControlNet for the family, as ControlNetLoader would make it from a file."""
    kind, more = SIZES[family]
    network = kind(
        **family.sizes, **more, dtype=torch.float32, device="cpu",
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    randomize(network, 6, {"controlnet_blocks": 2.0})
    for name, grid in network.named_buffers():
        if name == "pos_embed":
            grid.normal_(generator=torch.Generator().manual_seed(6)).mul_(0.02)
    with family.true_sizes():
        return comfy.controlnet.load_controlnet_state_dict(_stored(dict(network.state_dict())))


def _stored(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of real files: SD3's are those of diffusers."""
    made = {
        name.replace("_norm.weight", "_norm.scale") if "double_blocks" in name else name: value
        for name, value in weights.items()
    }
    if "joint_blocks.0.x_block.attn.qkv.weight" not in made:
        return made
    depth = made["x_embedder.proj.weight"].shape[0] // 64
    sizes = {"depth": depth, "num_blocks": 1}
    theirs = {}
    for name, own in comfy.utils.mmdit_to_diffusers(sizes).items():
        if isinstance(own, str) and own in made:
            theirs[name] = made.pop(own)
        elif own[0] in made:
            theirs[name] = made[own[0]].narrow(*own[1])
    return {**theirs, **{name: value for name, value in made.items() if "qkv" not in name}}


@cache
def vae(family: Family) -> comfy.sd.VAE:
    """A VAE of the family's latents: Wan's for those with frames, else a tiny autoencoder."""
    network = (
        comfy.ldm.wan.vae.WanVAE(**WAN)
        if family.frames
        else comfy.taesd.taesd.TAESD(latent_channels=family.channels)
    )
    randomize(network, 9, {})
    return comfy.sd.VAE(sd=dict(network.state_dict()), dtype=torch.float32)


def steered(
    family: Family, hints: int = 1, start: float = 0.0, end: float = 1.0
) -> Callable[[Graph, Link], Link]:
    """What puts a conditioning under the family's ControlNet, with random hint pictures."""

    def cond(graph: Graph, positive: Link) -> Link:
        return hinted(graph, family, positive, positive, hints, start, end)

    return cond


def hinted(
    graph: Graph, family: Family, positive: Link, negative: Link, hints: int = 1,
    start: float = 0.0, end: float = 1.0,
) -> Link:  # fmt: skip
    """Both conditionings under one ControlNet, as two outputs."""
    hint = torch.rand(hints, 64, 96, 3, generator=torch.Generator().manual_seed(8))
    return graph.add(
        "ControlNetApplyAdvanced", positive=positive, negative=negative,
        control_net=graph.value(control_net(family)), image=graph.value(hint), strength=0.8,
        start_percent=start, end_percent=end, vae=graph.value(vae(family)),
    )  # fmt: skip
