"""Local blend written down plainly: samplers that blend after every step, maps in full.

Shares no code with the pack. The samplers are textbook loops (Karras et al. 2022, Lu et al. 2022)
over the host's model; masks are made as in the authors' code for arXiv:2208.01626.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import comfy.k_diffusion.sampling as k_diffusion
import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from oracle import ExplicitAttention, make_plan, patched, positive_rows, read_words
from scenes import Edit, Settings
from torch import Tensor

Step = Iterator[Tensor]


@dataclass(frozen=True)
class Blend:
    """Words as in the node, separated by commas."""

    source_words: str
    target_words: str
    subtract_words: str = ""
    threshold: float = 0.3
    start_blend: float = 0.2


class CapturingAttention(ExplicitAttention):
    """Adds up the edited maps of the layers with ``tokens`` query tokens."""

    def __init__(self, plans: list, tokens: int, first_level: int) -> None:
        super().__init__(plans, first_level)
        self.tokens = tokens
        self.total: Tensor | float = 0.0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra: dict, edit: Callable) -> Tensor:
        if k.shape[1] == 77 and q.shape[1] == self.tokens:
            heads = extra["n_heads"]
            qh, kh = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
            maps = (qh @ kh.mT * qh.shape[-1] ** -0.5).softmax(-1).mean(1)
            chunk = extra["cond_or_uncond"].index(0)
            rows, group = len(maps) // len(extra["cond_or_uncond"]), 1 + len(self.plans)
            maps = maps[chunk * rows : (chunk + 1) * rows]
            new = maps.clone()
            for row in range(rows):
                if number := row % group:
                    new[row] = edit(maps, row - number, row, self.plans[number - 1])
            self.total = self.total + new
        return super().attend(q, k, v, extra, edit)


def columns(clip: CLIP, prompt: str, words: str) -> list[int]:
    """Columns of all phrases that the prompt has."""
    have, found = read_words(clip, prompt), set()
    for phrase in filter(None, map(str.strip, words.split(","))):
        try:
            found |= have.find(read_words(clip, phrase))
        except AssertionError:
            continue
    return sorted(found)


def threshold(maps: Tensor, size: tuple[int, int], limit: float, pool: bool) -> Tensor:
    maps = maps[None, None]
    if pool:
        maps = F.max_pool2d(maps, 3, 1, 1)
    maps = F.interpolate(maps, size=size)[0, 0]
    return (maps / maps.max()).gt(limit)


def region(
    maps: tuple[Tensor, Tensor], clip: CLIP, edit: Edit, blend: Blend, size: tuple[int, int]
) -> Tensor:
    """The mask of one edit, from the source row's and its own maps, (h, w, T) each."""
    mask, less = torch.zeros(2, *size, dtype=torch.bool)
    sides = ((edit.source, blend.source_words), (edit.target, blend.target_words))
    for prompt_maps, (prompt, words) in zip(maps, sides, strict=True):
        if chosen := columns(clip, prompt, words):
            mask |= threshold(prompt_maps[..., chosen].sum(-1), size, blend.threshold, True)
        if chosen := columns(clip, prompt, blend.subtract_words):
            less |= threshold(prompt_maps[..., chosen].sum(-1), size, blend.threshold, False)
    return mask & ~less


def euler(denoise: Callable, x: Tensor, sigmas: Tensor, noise: Callable) -> Step:
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + (x - denoise(x, sigma)) / sigma * (after - sigma)
        x = yield x


def heun(denoise: Callable, x: Tensor, sigmas: Tensor, noise: Callable) -> Step:
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = (x - denoise(x, sigma)) / sigma
        predicted = x + d * (after - sigma)
        if after > 0:
            d = (d + (predicted - denoise(predicted, after)) / after) / 2
        x = yield x + d * (after - sigma)


def euler_ancestral(denoise: Callable, x: Tensor, sigmas: Tensor, noise: Callable) -> Step:
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        up = min(after, (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5)
        down = (after**2 - up**2) ** 0.5
        x = x + (x - denoise(x, sigma)) / sigma * (down - sigma)
        x = yield x + noise(sigma, after) * up if after > 0 else x


def dpmpp_2m(denoise: Callable, x: Tensor, sigmas: Tensor, noise: Callable) -> Step:
    old, last = None, None
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        new = denoise(x, sigma)
        mixed, h = new, (sigma.log() - after.log())
        if old is not None and after > 0:
            r = (last.log() - sigma.log()) / h
            mixed = (1 + 1 / (2 * r)) * new - 1 / (2 * r) * old
        x = yield after / sigma * x - (-h).expm1() * mixed
        old, last = new, sigma


def dpmpp_2m_sde(denoise: Callable, x: Tensor, sigmas: Tensor, noise: Callable) -> Step:
    old, last_h = None, None
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        new = denoise(x, sigma)
        if after == 0:
            x = yield new
            continue
        h = sigma.log() - after.log()
        x = after / sigma * (-h).exp() * x + (-2 * h).expm1().neg() * new
        if old is not None:
            x = x + 0.5 * (-2 * h).expm1().neg() * (1 / (last_h / h)) * (new - old)
        x = yield x + noise(sigma, after) * after * (-2 * h).expm1().neg().sqrt()
        old, last_h = new, h


SAMPLERS = {
    "euler": euler,
    "ddim": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "euler_ancestral": euler_ancestral,
    "dpmpp_2m_sde": dpmpp_2m_sde,
}


@torch.inference_mode()
def blended(
    model: ModelPatcher, clip: CLIP, edits: list[tuple[Edit, Blend | None]], settings: Settings,
    coarse: tuple[int, int], first_level: int = 0,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """Latents of a full run with blends, and the last mask of every edited row.

    coarse: (h, w) of the attention layers whose maps make the masks.
    """
    s, group = settings, 1 + len(edits)
    attention = CapturingAttention(
        [make_plan(clip, edit) for edit, _ in edits], coarse[0] * coarse[1], first_level
    )
    controlled = patched(model, attention)
    prompts = [edits[0][0].source, *(edit.target for edit, _ in edits)]
    size = (s.height // 8, s.width // 8)
    masks: list[Tensor] = []

    def blend(x: Tensor) -> Tensor:
        masks.clear()
        x = x.clone()
        for row in range(len(x)):
            if not (number := row % group):
                continue
            edit, wanted = edits[number - 1]
            maps = attention.total.unflatten(1, coarse)
            pair = (maps[row - number], maps[row])
            mask = torch.ones(size, dtype=torch.bool)
            if wanted is not None:
                mask = region(pair, clip, edit, wanted, size)
            masks.append(mask)
            x[row] = torch.where(mask, x[row], x[row - number])
        return x

    def sampler_function(model_k, x, sigmas, extra_args, callback, disable) -> Tensor:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return model_k(x, sigma * x.new_ones(len(x)), **extra_args)

        own = x[::group]
        if "sde" in s.sampler_name:
            low, high = sigmas[sigmas > 0].min(), sigmas.max()
            draw = k_diffusion.BrownianTreeNoiseSampler(own, low, high, seed=s.seed, cpu=True)
        else:
            draw = k_diffusion.default_noise_sampler(own, seed=s.seed)
        steps = SAMPLERS[s.sampler_name](
            denoise, x, sigmas, lambda a, b: draw(a, b).repeat_interleave(group, dim=0)
        )
        total, start = len(sigmas) - 1, min(b.start_blend for _, b in edits if b)
        x = next(steps)
        for step in range(total):
            if step / total >= start:
                x = blend(x)
            try:
                x = steps.send(x)
            except StopIteration:
                break
        return x

    latent = torch.zeros(s.batch * group, 4, *size)
    noise = comfy.sample.prepare_noise(
        latent, s.seed, [seed for seed in range(s.batch) for _ in prompts]
    )
    sigmas = comfy.samplers.KSampler(
        controlled, s.steps, "cpu", s.sampler_name, s.scheduler, s.denoise
    ).sigmas
    out = comfy.sample.sample_custom(
        controlled, noise, s.cfg, comfy.samplers.KSAMPLER(sampler_function), sigmas,
        positive_rows(clip, prompts, s.batch),
        clip.encode_from_tokens_scheduled(clip.tokenize(s.negative)), latent,
        seed=s.seed, disable_pbar=True,
    )  # fmt: skip
    return out, masks
