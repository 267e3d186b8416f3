"""Null-text embeddings under edits, and what they leave of the user's model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from host_run import GraphError, Interrupted, Link, run
from model_state import cancel, disturbed, fail, snapshot
from null_text_scenes import SIX_STEPS, calm, invert, optimize, picture
from scenes import SOURCE, Edit, Scene, Settings, distance, identity, plain, scene
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
FOUR_STEPS = SIX_STEPS.but(steps=4)
SWAP = Edit("swap", "a photo of a red dog on a bench")


def edited(s: Scene, found: Link, inversion: Link, *edits: Edit, pinned: bool) -> Link:
    control = s.control(
        *edits, model=found, latent=inversion[1], inversion=inversion if pinned else None
    )
    return s.sample(control, control[1], control[2], negative=found[1])


def test_the_source_of_an_edit_is_the_reconstruction() -> None:
    s = scene(FOUR_STEPS, model=calm())
    inversion = invert(s, picture(2))
    found = optimize(s, inversion, inner_steps=2)
    link = edited(s, found, inversion, SWAP, identity(), pinned=False)
    found_again, out = (result["samples"] for result in run(s.graph, found[2], link))
    assert out.isfinite().all()
    assert distance(out[::3], found_again) < 1e-4
    assert distance(out[1], out[0]) > 1e-2
    # The embeddings of every picture reach all rows of its group.
    assert distance(out[2::3], out[::3]) < 1e-4


@pytest.mark.parametrize("batch", [1, 2])
def test_a_pinned_source_comes_back_bit_for_bit(batch: int) -> None:
    """There the host is given fewer rows than the embeddings were made for."""
    model = calm()
    watched = model.clone()
    watched.set_model_attn2_output_patch(lambda n, extra: n)  # may count rows: all are evaluated
    fewer, all_rows = (pinned(which, picture(batch)) for which in (model, watched))
    assert torch.equal(fewer[::2], picture(batch))
    assert fewer.isfinite().all()
    assert distance(fewer, all_rows) < 1e-4


def pinned(model: ModelPatcher, latent: Tensor) -> Tensor:
    s = scene(FOUR_STEPS, model=model)
    inversion = invert(s, latent)
    found = optimize(s, inversion, inner_steps=1)
    return run(s.graph, edited(s, found, inversion, SWAP, pinned=True))["samples"]


def test_a_target_longer_than_the_negative() -> None:
    """The host repeats the negative's 77 tokens to match."""
    s = scene(FOUR_STEPS, model=calm())
    inversion = invert(s, picture())
    found = optimize(s, inversion, inner_steps=1)
    long = Edit("refine", SOURCE + ", detailed" * 80, cross=0.0, self_=0.0)
    link = edited(s, found, inversion, long, pinned=False)
    reconstruction, out = (result["samples"] for result in run(s.graph, found[2], link))
    assert distance(out[:1], reconstruction) < 1e-4
    assert out.isfinite().all()


@pytest.mark.parametrize("how", ["run", "error", "cancel"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_model_is_bit_identical_afterwards(how: str, checkpointing: bool) -> None:
    model = calm(seed=5)
    settings = Settings(steps=2, width=64, height=64)
    image = plain(SOURCE, settings, model=model)  # also loads it
    weights, hung = snapshot(model)
    gradients = [weight.requires_grad for weight in model.model.parameters()]  # hosts differ
    if how == "run":
        optimized(model, checkpointing=checkpointing)
    elif how == "error":
        with pytest.raises(GraphError, match="someone else fails"):
            optimized(disturbed(model, 9, fail), checkpointing=checkpointing)
    else:
        with pytest.raises(Interrupted):
            optimized(disturbed(model, 9, cancel), checkpointing=checkpointing)
    weights_after, hung_after = snapshot(model)
    torch.testing.assert_close(weights_after, weights, rtol=0, atol=0)
    assert hung_after == hung
    for module in model.model.modules():
        assert not getattr(module, "weight_function", [])
        assert not getattr(module, "bias_function", [])
    assert gradients == [weight.requires_grad for weight in model.model.parameters()]
    assert torch.equal(plain(SOURCE, settings, model=model), image)


def optimized(model: ModelPatcher, **inputs: Any) -> Tensor:
    s = scene(FOUR_STEPS, model=model)
    return run(s.graph, optimize(s, invert(s, picture()), inner_steps=2, **inputs)[2])["samples"]


def test_inputs_stay_as_they_were() -> None:
    s = scene(FOUR_STEPS, model=calm())
    negative = s.text("")
    inversion = invert(s, picture())
    before, text = run(s.graph, inversion, negative)
    kept = before.latent.clone(), before.offsets.clone(), text[0][0].clone()
    found = optimize(s, s.graph.value(before), negative=s.graph.value(text), inner_steps=1)
    run(s.graph, found[2])
    for now, then in zip((before.latent, before.offsets, text[0][0]), kept, strict=True):
        assert torch.equal(now, then)
    assert set(text[0][1]) == {"pooled_output"}


def test_patches_that_write_in_place() -> None:
    """FreeU overwrites what a backward pass needs. It divides by zero on a single position."""
    photograph = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    s = scene(FOUR_STEPS, model=calm())
    model = s.graph.add("FreeU_V2", model=s.model, b1=1.1, b2=1.1, s1=0.9, s2=0.9)
    inversion = invert(s, photograph, model=model)
    message = "FreeU_V2.*overwrites what it is given.*Remove that node.*inner_steps to 0"
    with pytest.raises(GraphError, match=message):
        run(s.graph, optimize(s, inversion, model=model, inner_steps=4))
    found = optimize(s, inversion, model=model, inner_steps=0)
    out = run(s.graph, s.sample(found, s.text(SOURCE), inversion[1], negative=found[1]))
    assert out["samples"].isfinite().all()
