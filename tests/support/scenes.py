"""The same edit for the graph and for the oracle, and the graphs that most tests run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from host_run import Graph, Link, run
from tiny_model import shared_clip, shared_unet
from torch import Tensor

SOURCE = "a photo of a red cat on a bench"
NEGATIVE = "blurry"


@dataclass(frozen=True)
class Edit:
    """An edit node and the Reweights behind it; kind: swap, refine, or reweight (no target)."""

    kind: str
    target: str = SOURCE
    source: str = SOURCE
    cross: float = 0.8
    self_: float = 0.4
    word_windows: str = ""
    scales: tuple[tuple[str, float], ...] = ()

    def build(self, graph: Graph, clip: Link) -> Link:
        scales = list(self.scales)
        if self.kind == "reweight":
            words, scale = scales.pop(0)
            link = graph.add("P2PReweight", clip=clip, prompt=self.target, words=words, scale=scale)
        else:
            link = graph.add(
                {"swap": "P2PWordSwap", "refine": "P2PRefine"}[self.kind],
                clip=clip,
                source_prompt=self.source,
                target_prompt=self.target,
                cross_replace_steps=self.cross,
                self_replace_steps=self.self_,
                word_windows=self.word_windows,
            )
        for words, scale in scales:
            link = graph.add("P2PReweight", edit=link, words=words, scale=scale)
        return link


def identity(source: str = SOURCE, kind: str = "swap") -> Edit:
    return Edit(kind, target=source, source=source)


@dataclass(frozen=True)
class Settings:
    """What a KSampler is told; the latent's size is given in pixels."""

    sampler_name: str = "euler"
    scheduler: str = "normal"
    steps: int = 20
    cfg: float = 4.0
    seed: int = 7
    denoise: float = 1.0
    width: int = 128
    height: int = 128
    batch: int = 1
    negative: str = NEGATIVE

    def but(self, **changes: Any) -> Settings:
        return replace(self, **changes)


@dataclass
class Scene:
    """A graph with model, text encoder, negative conditioning and latent in place."""

    graph: Graph
    model: Link
    clip: Link
    negative: Link
    latent: Link
    settings: Settings

    def text(self, prompt: str) -> Link:
        return self.graph.add("CLIPTextEncode", clip=self.clip, text=prompt)

    def control(self, *edits: Edit, **inputs: Any) -> Link:
        """The controller of these edits; its outputs are model, positive, latent, record."""
        links = [edit.build(self.graph, self.clip) for edit in edits]
        names = ["edit", *(f"edit_{number}" for number in range(2, 9))][: len(links)]
        wired = {"model": self.model, "latent": self.latent, **dict(zip(names, links, strict=True))}
        return self.graph.add("P2PAttentionController", **{**wired, **inputs})

    def sample(self, model: Link, positive: Link, latent: Link, **inputs: Any) -> Link:
        """An ordinary KSampler."""
        s = self.settings
        wired = {
            "model": model, "positive": positive, "negative": self.negative,
            "latent_image": latent, "seed": s.seed, "steps": s.steps, "cfg": s.cfg,
            "sampler_name": s.sampler_name, "scheduler": s.scheduler, "denoise": s.denoise,
        }  # fmt: skip
        return self.graph.add("KSampler", **{**wired, **inputs})

    def sample_controlled(self, *edits: Edit) -> Link:
        control = self.control(*edits)
        return self.sample(control, control[1], control[2])


def scene(
    settings: Settings | None = None, model: ModelPatcher | None = None, clip: CLIP | None = None
) -> Scene:
    settings = settings or Settings()
    graph = Graph()
    clip_link = graph.value(clip or shared_clip())
    return Scene(
        graph=graph,
        model=graph.value(model or shared_unet()),
        clip=clip_link,
        negative=graph.add("CLIPTextEncode", clip=clip_link, text=settings.negative),
        latent=graph.add(
            "EmptyLatentImage",
            width=settings.width,
            height=settings.height,
            batch_size=settings.batch,
        ),  # fmt: skip
        settings=settings,
    )


def plain(prompt: str, settings: Settings | None = None, **parts: Any) -> Tensor:
    """Latents of an ordinary run: (batch, C, h, w)."""
    s = scene(settings, **parts)
    return run(s.graph, s.sample(s.model, s.text(prompt), s.latent))["samples"]


def controlled(edits: Sequence[Edit], settings: Settings | None = None, **parts: Any) -> Tensor:
    """Latents of a run with edits, seed-major: (batch * (1 + n), C, h, w)."""
    s = scene(settings, **parts)
    return run(s.graph, s.sample_controlled(*edits))["samples"]


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a.double() - b.double()).norm() / b.double().norm())
