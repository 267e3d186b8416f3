"""Prompt-to-Prompt as attention processors in diffusers, on the same weights and noise levels.

As such controllers are written: every attention map is materialised, and the controller edits it.
Hertz et al. 2022 (arXiv:2208.01626), algorithm 1:

    cross-attention   M_new = α·(M_s R) + (1 - α)·M_t, and M_t once the share of the steps is over
    self-attention    M_new = M_s for a share of the steps, in layers of at most 32 x 32 positions

It is held against the pack's own result, so that both are known to compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

COLUMNS = 77


@dataclass
class Control:
    """The controller of [source, edit] at cfg: rows [uncond s, uncond e, cond s, cond e].

    step: the current one of ``steps``. limit: most positions of a layer with self-attention
    injection.
    """

    steps: int
    mapper: Tensor
    limit: int
    cross_share: float = 0.8
    self_share: float = 0.4
    step: int = 0

    def __call__(self, maps: Tensor, cross: bool) -> Tensor:
        """The edited maps, (4 * heads, Q, T)."""
        rows = maps.unflatten(0, (4, -1))
        share = self.step / self.steps
        if cross and share < self.cross_share:
            return torch.cat([rows[:3], (rows[2] @ self.mapper)[None]]).flatten(0, 1)
        if not cross and share < self.self_share and maps.shape[1] <= self.limit:
            return torch.cat([rows[:3], rows[2:3]]).flatten(0, 1)
        return maps


class MapsProcessor:
    """An attention processor of diffusers that hands every map to a controller."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, **others: Any,
    ) -> Tensor:  # fmt: skip
        cross = encoder_hidden_states is not None
        text = encoder_hidden_states if cross else hidden_states
        parts = attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text)
        q, k, v = (attn.head_to_batch_dim(part) for part in parts)
        maps = self.control(attn.get_attention_scores(q, k, attention_mask), cross)
        out = attn.batch_to_head_dim(torch.bmm(maps, v))
        return attn.to_out[1](attn.to_out[0](out))


@dataclass
class Peer:
    """The UNet in diffusers, with the very weights of the host's model, and a run's inputs.

    noise: (2, C, h, w), scaled to the first of sigmas. text: (4, 77, D). added: what SDXL reads
    besides. fused: the attention processor of plain sampling.
    """

    unet: Any
    timestep: Callable[[Tensor], Tensor]
    noise: Tensor
    sigmas: list[float]
    text: Tensor
    added: dict[str, Tensor] | None
    cfg: float
    fused: Any

    @torch.inference_mode()
    def sample(self, control: Control | None) -> Tensor:
        """Euler steps at the host's noise levels; edited by a controller, or plain."""
        if control is None:
            self.unet.set_attn_processor(self.fused)
        else:
            self.unet.set_attn_processor(MapsProcessor(control))
        x = self.noise
        levels = list(zip(self.sigmas, self.sigmas[1:], strict=False))
        for step, (sigma, following) in enumerate(levels):
            if control is not None:
                control.step = step
            at = torch.full((4,), sigma, device=x.device)
            scaled = torch.cat([x, x]) / (sigma**2 + 1) ** 0.5
            more = {"added_cond_kwargs": self.added} if self.added else {}
            eps = self.unet(
                scaled.to(self.text.dtype), self.timestep(at), self.text, return_dict=False, **more
            )[0].float()
            uncond, cond = eps.chunk(2)
            x = x + (following - sigma) * (uncond + self.cfg * (cond - uncond))
        return x


def peer(
    shape: dict[str, Any], config: dict[str, Any], model: Any, text: Tensor, pooled: Tensor,
    noise: Tensor, sigmas: list[float], cfg: float,
) -> Peer:  # fmt: skip
    """The host's model in diffusers; the weights are shared, not copied."""
    import comfy.utils
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor2_0

    weights = model.model.diffusion_model.state_dict()
    names = comfy.utils.unet_to_diffusers(shape)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    read = unet.state_dict().keys()  # the host knows two names of what SDXL adds
    renamed = {name: weights[own] for name, own in names.items() if own in weights and name in read}
    unet.load_state_dict(renamed, assign=True)
    device, dtype = noise.device, shape["dtype"]
    added = None
    if "addition_embed_type" in config:
        height, width = (side * 8 for side in noise.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=device, dtype=dtype)
        added = {"text_embeds": pooled.to(device, dtype), "time_ids": sizes.repeat(4, 1)}
    timestep = model.model.model_sampling.timestep
    text = text.to(device, dtype)
    return Peer(unet.eval(), timestep, noise, sigmas, text, added, cfg, AttnProcessor2_0())
