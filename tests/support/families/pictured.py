"""Qwen-Image-Edit in miniature: prompts with pictures, by the host's nodes and by ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from host_run import Graph, Link, run
from text_encoders import make_encoder
from torch import Tensor

from . import streams
from .edits import CROSS_SHARE, SEED, SELF_SHARE, STEPS, model_of

FAMILY = streams.QWEN_IMAGE
SIZES = ((8, 12), (20, 10))  # of the reference latents


@dataclass(frozen=True)
class Kind:
    """How pictures come in: the host's node, and its names for them.

    vae: whether it makes the reference latents, or nodes behind it.
    """

    node: str
    names: tuple[str, ...]
    vae: bool = False


KINDS = {
    "one picture": Kind("TextEncodeQwenImageEdit", ("image",)),
    "Plus, one": Kind("TextEncodeQwenImageEditPlus", ("image1",)),
    "Plus, two": Kind("TextEncodeQwenImageEditPlus", ("image1", "image2")),
    "Plus, VAE": Kind("TextEncodeQwenImageEditPlus", ("image1", "image2"), vae=True),
}


class SmallVae:
    """Latents of few cells, whatever size a picture has."""

    def encode(self, pixels: Tensor) -> Tensor:
        size = (8, 12) if pixels.shape[1] < pixels.shape[2] else (10, 8)
        small = torch.nn.functional.interpolate(pixels.movedim(-1, 1), size=size, mode="area")
        return 4 * small.repeat(1, 6, 1, 1)[:, :16, None] - 2


@cache
def text_encoder() -> Any:
    return make_encoder("Qwen-Image", qwen25_7b=3584)


def pictures(kind: Kind) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    sizes = ((64, 96), (80, 64))
    return {
        name: torch.rand(1, *size, 3, generator=generator)
        for name, size in zip(kind.names, sizes, strict=False)
    }


class Place:
    """A graph with the model, its text encoder, a latent and the kind's pictures."""

    def __init__(self, kind: Kind) -> None:
        self.graph, self.kind = Graph(), kind
        self.clip = self.graph.value(text_encoder())
        self.model = self.graph.value(model_of(FAMILY))
        self.latent = self.graph.value({"samples": FAMILY.latent(8, 12)})
        self.vae = self.graph.value(SmallVae()) if kind.vae else None
        self.images = {name: self.graph.value(p) for name, p in pictures(kind).items()}

    def text(self, prompt: str, clip: Link | None = None) -> Link:
        """The host's node."""
        return self.graph.add(
            self.kind.node, clip=clip or self.clip, prompt=prompt, vae=self.vae, **self.images
        )

    def pictured(self, clip: Link | None = None) -> Link:
        """The clip with the pictures."""
        images = {
            f"image{number}": image for number, image in enumerate(self.images.values(), start=1)
        }
        return self.graph.add(
            "P2PPromptPictures", clip=clip or self.clip, text_encoder=self.kind.node, vae=self.vae,
            **images,
        )  # fmt: skip

    def with_references(self, positive: Link) -> Link:
        if self.vae is not None:
            return positive
        generator = torch.Generator().manual_seed(11)
        for size in SIZES[: len(self.kind.names)]:
            latent = self.graph.value(
                {"samples": torch.randn(1, 16, 1, *size, generator=generator)}
            )
            positive = self.graph.add("ReferenceLatent", conditioning=positive, latent=latent)
        return positive

    def sampled(self, model: Link, positive: Link, latent: Link) -> Tensor:
        negative = self.graph.add("CLIPTextEncode", clip=self.clip, text="blurry")
        samples = self.graph.add(
            "KSampler", model=model, positive=positive, negative=negative, seed=SEED,
            latent_image=latent, steps=STEPS, cfg=1.0, sampler_name="euler", scheduler="simple",
            denoise=1.0,
        )  # fmt: skip
        return run(self.graph, samples)["samples"]

    def plain(self, prompt: str) -> Tensor:
        positive = self.with_references(self.text(prompt))
        return self.sampled(self.model, positive, self.latent)

    def edited(self, node: str, source: str, target: str) -> Tensor:
        edit = self.graph.add(
            node, clip=self.pictured(), source_prompt=source, target_prompt=target,
            cross_replace_steps=CROSS_SHARE, self_replace_steps=SELF_SHARE,
        )  # fmt: skip
        control = self.graph.add(
            "P2PAttentionController", model=self.model, latent=self.latent, edit=edit,
            mode="hybrid",
        )  # fmt: skip
        return self.sampled(control, self.with_references(control[1]), control[2])


def words(text: str, length: int) -> list[list[int]]:
    """Columns of every word, from the encoding's length: the template has 5 tokens behind."""
    tokenizer = text_encoder().tokenizer.qwen25_7b.tokenizer
    counts = [len(tokenizer(f" {word}")["input_ids"]) for word in text.split()]
    first = length - 5 - sum(counts)
    starts = [first + sum(counts[:i]) for i in range(len(counts))]
    return [list(range(s, s + count)) for s, count in zip(starts, counts, strict=True)]
