"""Mistakes around null-text embeddings: one sentence tells what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from host_run import GraphError, Link, run
from null_text_scenes import SIX_STEPS, calm, invert, optimize, picture, sample
from scenes import SOURCE, Edit, Scene, scene
from tiny_model import shared_unet

pytestmark = pytest.mark.usefixtures("host")
TWO_STEPS = SIX_STEPS.but(steps=2)
SWAP = Edit("swap", "a photo of a red dog on a bench")
QUICK = {"inner_steps": 0}


def optimized(s: Scene, inversion: Link | None = None, **inputs: Any) -> Link:
    return optimize(s, inversion or invert(s, picture()), **{**QUICK, **inputs})


def sampled(s: Scene, **inputs: Any) -> Link:
    inversion = invert(s, picture())
    return sample(s, optimize(s, inversion, **QUICK), inversion[1], **inputs)


def with_found(s: Scene, wire: Callable[[Link], dict[str, Any]]) -> Link:
    """A sampler whose inputs are made from the node's outputs."""
    inversion = invert(s, picture())
    found = optimize(s, inversion, **QUICK)
    return sample(s, found, inversion[1], **wire(found))


def combined(s: Scene, kind: str, a: Link) -> Link:
    names = ("conditioning_1", "conditioning_2") if kind.endswith("Combine") else (
        "conditioning_to", "conditioning_from"
    )  # fmt: skip
    return s.graph.add(kind, **dict(zip(names, (a, s.text("other")), strict=True)))


def in_area(s: Scene, conditioning: Link) -> Link:
    size = {"width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0}
    return s.graph.add("ConditioningSetArea", conditioning=conditioning, **size)


def rescaled(s: Scene) -> Link:
    model = shared_unet().clone()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    return s.graph.value(model)


def masked(s: Scene) -> Link:
    inversion = invert(s, picture())
    mask = s.graph.add("SolidMask", value=1.0, width=64, height=64)
    latent = s.graph.add("SetLatentNoiseMask", samples=inversion[1], mask=mask)
    return sample(s, optimize(s, inversion, **QUICK), latent)


def with_rows(s: Scene, rows: int) -> Link:
    inversion = invert(s, picture(2))
    latent = s.graph.value({"samples": torch.zeros(rows, 4, 8, 8)})
    return sample(s, optimize(s, inversion, **QUICK), latent)


def with_fixed_noise(s: Scene) -> Link:
    latent = s.graph.value({"samples": picture()})
    noisy = s.graph.add("P2PNoiseInvert", latent=latent, seed=1, steps=2, scheduler="normal")
    return optimized(s, noisy)


def at_another_cfg(s: Scene) -> Link:
    inversion = invert(s, picture())
    return sample(s, optimize(s, inversion, inner_steps=1), inversion[1], cfg=5.0)


def limited(s: Scene, found: Link) -> Link:
    steps = {"start": 0.0, "end": 0.5}
    return s.graph.add("ConditioningSetTimestepRange", conditioning=found[1], **steps)


def changed_later(s: Scene, kind: str, **inputs: Any) -> Link:
    """A node between the optimised model and the sampler."""
    inversion = invert(s, picture())
    found = optimize(s, inversion, **QUICK)
    model = s.graph.add(kind, model=found, **inputs)
    return s.sample(model, s.text(SOURCE), inversion[1], negative=found[1])


def merged_later(s: Scene) -> Link:
    inversion = invert(s, picture())
    found = optimize(s, inversion, **QUICK)
    other = s.graph.value(calm(seed=9))
    model = s.graph.add("ModelMergeSimple", model1=found, model2=other, ratio=0.5)
    return s.sample(model, s.text(SOURCE), inversion[1], negative=found[1])


def on_another_model(s: Scene) -> Link:
    inversion = invert(s, picture())
    found = optimize(s, inversion, **QUICK)
    return s.sample(s.model, s.text(SOURCE), inversion[1], negative=found[1])


def with_another_size(s: Scene) -> Link:
    found = optimize(s, invert(s, picture()), **QUICK)
    return sample(s, found, s.graph.value({"samples": torch.zeros(1, 4, 8, 6)}))


def with_others_negative(s: Scene) -> Link:
    inversion = invert(s, picture())
    found = optimize(s, inversion, **QUICK)
    other = optimize(s, inversion, **QUICK, learning_rate=0.02)
    return sample(s, found, inversion[1], negative=other[1])


NAN = float("nan")
CHANGED = "was changed on its way to the sampler.*Wire the negative output"
PLAIN_PROMPT = "one prompt for the whole picture.*but the {} is {}.*Wire a CLIPTextEncode to {}"
INPUTS: dict[str, tuple[Callable[[Scene], Link], str]] = {
    "no cfg": (lambda s: optimized(s, cfg=NAN), "cfg must be a number, got nan"),
    "no learning rate": (
        lambda s: optimized(s, learning_rate=NAN), "learning_rate must be a number, got nan",
    ),
    "no early stop": (lambda s: optimized(s, early_stop=NAN), "early_stop must be a number"),
    "an empty positive": (
        lambda s: optimized(s, positive=s.graph.value([])), "positive is an empty conditioning",
    ),
    "an empty negative": (
        lambda s: optimized(s, negative=s.graph.value([])), "negative is an empty conditioning",
    ),
    "an optimised negative": (
        lambda s: optimized(s, negative=optimized(s)[1]),
        "negative comes from another P2P Null-Text Optimize.*Wire a CLIPTextEncode to negative",
    ),
    "the controller's model": (
        lambda s: optimized(s, invert(s, picture()), model=s.control(SWAP)),
        "needs the unpatched model.*Wire the checkpoint's model",
    ),
    "an optimised model": (
        lambda s: optimized(s, invert(s, picture()), model=optimized(s)),
        "needs the unpatched model.*Wire the checkpoint's model",
    ),
    "an optimised model to the inversion": (
        lambda s: invert(s, picture(), model=optimized(s)),
        "needs the unpatched model.*P2P Null-Text Optimize.*Wire the checkpoint's model",
    ),
    "the controller's positive": (
        lambda s: optimized(s, positive=s.control(SWAP)[1]),
        "positive comes from an AttentionController.*CLIPTextEncode of the source prompt",
    ),
    "another prompt": (
        lambda s: optimized(s, positive=s.text("a tree")),
        "not the prompt that the inversion was made under.*same CLIPTextEncode",
    ),
    "another model": (
        lambda s: optimized(s, invert(s, picture(), model=s.graph.value(calm(seed=9)))),
        "made with another model.*Invert the picture again",
    ),
    "one fixed noise": (
        with_fixed_noise, "one fixed noise.*cannot follow it. Wire the inversion of P2P DDIM Invert"
    ),
    "no guidance": (
        lambda s: optimized(s, cfg=1.0, inner_steps=1), "At cfg 1 the negative.*Set cfg to that",
    ),
    "other guidance": (
        lambda s: optimized(s, model=rescaled(s)),
        r"changes how this model's guidance is computed \(sampler_post_cfg_function\).*RescaleCFG",
    ),
    "two negatives": (
        lambda s: optimized(s, negative=combined(s, "ConditioningCombine", s.negative)),
        PLAIN_PROMPT.format("negative", "combined from several", "negative"),
    ),
    "a negative for an area": (
        lambda s: optimized(s, negative=in_area(s, s.negative)),
        PLAIN_PROMPT.format("negative", r"limited or steered \(area\)", "negative"),
    ),
    "a positive for an area": (
        lambda s: optimized(s, positive=in_area(s, s.text(SOURCE))),
        PLAIN_PROMPT.format("positive", r"limited or steered \(area\)", "positive"),
    ),
}  # fmt: skip
RUNS: dict[str, tuple[Callable[[Scene], Link], str]] = {
    "the negative on another model": (
        on_another_model, "negative comes from P2P Null-Text Optimize, but its model.*from no P2P",
    ),
    "another size": (
        with_another_size, r"latents of shape \(4, 8, 8\), but the sampler got \(4, 8, 6\)",
    ),
    "the negative of another run": (
        with_others_negative, "negative does not come from the P2P Null-Text.*that made its model",
    ),
    "another negative": (
        lambda s: sampled(s, negative=s.negative),
        "negative does not come from the P2P Null-Text Optimize.*Wire the negative output",
    ),
    "the negative as positive": (
        lambda s: with_found(s, lambda found: {"positive": found[1], "negative": s.negative}),
        "wired to the sampler's positive. Wire it to negative",
    ),
    "a longer negative": (
        lambda s: with_found(
            s, lambda found: {"negative": combined(s, "ConditioningConcat", found[1])}
        ),
        CHANGED,
    ),
    "one more negative": (
        lambda s: with_found(
            s, lambda found: {"negative": combined(s, "ConditioningCombine", found[1])}
        ),
        CHANGED,
    ),
    "a negative for some steps": (
        lambda s: with_found(s, lambda found: {"negative": limited(s, found)}), CHANGED,
    ),
    "other guidance afterwards": (
        lambda s: changed_later(s, "RescaleCFG", multiplier=0.7),
        r"changed between P2P Null-Text.*\(sampler_cfg_function\).*leave out those that change",
    ),
    "another network afterwards": (
        lambda s: changed_later(s, "FreeU", b1=1.1, b2=1.2, s1=0.9, s2=0.2),
        r"changed between P2P Null-Text.*\(patches of the network\).*before P2P DDIM Invert",
    ),
    "other weights afterwards": (
        merged_later, r"changed between P2P Null-Text.*\(weights or LoRAs\).*before P2P DDIM",
    ),
    "an area": (
        lambda s: sampled(s, positive=in_area(s, s.text(SOURCE))),
        "limited to an area. Remove the area",
    ),
    "a mask": (masked, "cannot be sampled through a noise mask.*P2P Local Blend Mask"),
    "another cfg": (
        at_another_cfg,
        "optimised for cfg 7.5, but the sampler runs at cfg 5,.*Give both the same cfg",
    ),
    "other steps": (
        lambda s: sampled(s, steps=3),
        r"the inversion has 2 steps \(sigmas.*the sampler 3 \(sigmas.*same steps",
    ),
    "other levels": (lambda s: sampled(s, denoise=0.5), "schedule does not match"),
    "noise at every step": (
        lambda s: sampled(s, sampler_name="euler_ancestral"),
        "euler_ancestral adds noise at every step.*Use a deterministic sampler",
    ),
    "hidden steps": (
        lambda s: sampled(s, sampler_name="euler_cfg_pp"),
        "Null-text inversion cannot keep the source under.*euler_cfg_pp.*Use euler",
    ),
    "too few pictures": (
        lambda s: with_rows(s, 3), "those of 2 pictures.*latent batch of 3.*inversion's latent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str) -> None:
    refused(*INPUTS[name])


@pytest.mark.parametrize("name", RUNS)
def test_runs(name: str) -> None:
    refused(*RUNS[name])


def refused(wire: Callable[[Scene], Link], message: str) -> None:
    s = scene(TWO_STEPS)
    with pytest.raises(GraphError, match=message):
        run(s.graph, wire(s))
