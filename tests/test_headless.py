"""The pack without a graph gives what the graph gives."""

from __future__ import annotations

import pytest
import torch
from host_run import run
from scenes import NEGATIVE, SOURCE, Edit, Settings, distance, scene
from tiny_model import shared_clip, shared_unet

import headless

SHORT = Settings(steps=3, width=64, height=64)
TARGETS = ("a photo of a blue dog on a bench", "a photo of a red horse on a bench")


@pytest.fixture(scope="module")
def pack(host: None) -> headless.Pack:
    return headless.Pack()


@pytest.mark.parametrize("refine", [False, True])
def test_edits_equal_the_graphs(pack: headless.Pack, refine: bool) -> None:
    s = scene(SHORT)
    edits = [Edit("refine" if refine else "swap", target) for target in TARGETS]
    expected = run(s.graph, s.sample_controlled(*edits))["samples"]
    model, clip = shared_unet(), shared_clip()
    with torch.inference_mode():
        latent = pack.empty_latent(64, 64)
        made = pack.edit(model, clip, SOURCE, TARGETS, latent, refine)
        negative = pack.text(clip, NEGATIVE)
        out = pack.sample(made.model, made.positive, negative, made.latent, 7, 3, SHORT.cfg)
    assert distance(out["samples"], expected) <= 1e-6


def test_a_photograph_comes_back(pack: headless.Pack) -> None:
    photograph = {"samples": torch.randn(1, 4, 8, 8)}
    model, clip = shared_unet(), shared_clip()
    with torch.inference_mode():
        found = pack.invert(model, pack.text(clip, SOURCE), photograph, steps=3)
        made = pack.edit(model, clip, SOURCE, TARGETS[0], found.latent, inversion=found.inversion)
        negative = pack.text(clip, NEGATIVE)
        out = pack.sample(made.model, made.positive, negative, made.latent, steps=3)["samples"]
    assert torch.equal(out[:1], photograph["samples"])
    assert distance(out[1], out[0]) > 1e-2


def test_errors_are_the_nodes_own(pack: headless.Pack) -> None:
    with pytest.raises(ValueError, match="source_prompt is empty"):
        pack.edit(shared_unet(), shared_clip(), "", "a dog", pack.empty_latent(64, 64))
