"""Null-text optimisation on the real host: pictures that come back under guidance."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from host_run import run
from null_text_scenes import SIX_STEPS, calm, invert, optimize, picture, plain, sample
from scenes import SOURCE, distance, scene
from tiny_model import TinySD15, TinySD15V
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")


@pytest.fixture(scope="module", params=[TinySD15, TinySD15V], ids=["eps", "v"])
def model(request: pytest.FixtureRequest) -> ModelPatcher:
    return calm(request.param)


def test_the_picture_comes_back_under_guidance(model: ModelPatcher) -> None:
    s = scene(SIX_STEPS, model=model)
    inversion = invert(s, picture(2))
    found = optimize(s, inversion, inner_steps=40)
    uncorrected, reconstruction = run(s.graph, plain(s, inversion), found[2])
    before, after = (distance(out["samples"], picture(2)) for out in (uncorrected, reconstruction))
    assert after < 0.25 * before


def test_an_ordinary_sampler_paints_the_reconstruction_whatever_its_noise(
    model: ModelPatcher,
) -> None:
    s = scene(SIX_STEPS, model=model)
    inversion = invert(s, picture(2))
    found = optimize(s, inversion, inner_steps=3)
    sampled = [sample(s, found, inversion[1], seed=seed) for seed in (1, 2)]
    empty = s.graph.value({"samples": torch.zeros(2, 4, 8, 8)})
    results = run(s.graph, found[2], *sampled, sample(s, found, empty, sampler_name="ddim"))
    reconstruction, first, *others = (result["samples"] for result in results)
    assert distance(first, reconstruction) < 1e-4
    for other in others:
        assert torch.equal(other, first)


def test_a_run_split_over_two_samplers() -> None:
    s = scene(SIX_STEPS, model=calm())
    inversion = invert(s, picture())
    found = optimize(s, inversion, inner_steps=2)
    shared = {
        "model": found, "positive": s.text(SOURCE), "negative": found[1], "noise_seed": 4,
        "steps": 6, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal",
    }  # fmt: skip
    first = s.graph.add(
        "KSamplerAdvanced", **shared, add_noise="enable", latent_image=inversion[1],
        start_at_step=0, end_at_step=2, return_with_leftover_noise="enable",
    )  # fmt: skip
    second = s.graph.add(
        "KSamplerAdvanced", **shared, add_noise="disable", latent_image=first,
        start_at_step=2, end_at_step=10000, return_with_leftover_noise="disable",
    )  # fmt: skip
    whole, split = run(s.graph, sample(s, found, inversion[1]), second)
    assert distance(split["samples"], whole["samples"]) < 1e-4


def test_the_end_of_a_longer_inversion() -> None:
    """A run over the last steps begins on the inverted path, whatever its noise."""
    s = scene(SIX_STEPS, model=calm())
    inversion = invert(s, picture())
    found = optimize(s, inversion)
    photo = s.graph.value({"samples": picture()})
    tails = [sample(s, found, photo, seed=seed, steps=3, denoise=0.5) for seed in (1, 2)]
    reconstruction, one, other = (out["samples"] for out in run(s.graph, found[2], *tails))
    assert torch.equal(one, other)
    assert distance(one, picture()) < 2 * distance(reconstruction, picture())


def test_every_picture_has_embeddings_of_its_own() -> None:
    model, both = calm(share=0.05), picture(2)
    together = reconstruction(model, both, inner_steps=1)
    for row in range(2):
        alone = reconstruction(model, both[row : row + 1], inner_steps=1)
        assert distance(together[row : row + 1], alone) < 5e-3


def reconstruction(model: ModelPatcher, latent: Tensor, **inputs: Any) -> Tensor:
    s = scene(SIX_STEPS, model=model)
    found = optimize(s, invert(s, latent), **{"inner_steps": 3, **inputs})
    return run(s.graph, found[2])["samples"]


def test_activation_checkpointing_gives_the_same_result() -> None:
    model = calm()
    assert torch.equal(
        reconstruction(model, picture(), inner_steps=1, checkpointing=True),
        reconstruction(model, picture(), inner_steps=1),
    )


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 0.05), (torch.bfloat16, 0.25)])
def test_half_precision_weights(dtype: torch.dtype, near: float) -> None:
    model = calm(share=0.02)
    model.model.diffusion_model.to(dtype)
    model.model.diffusion_model.dtype = dtype
    s = scene(SIX_STEPS, model=model)
    inversion = invert(s, picture())
    found = optimize(s, inversion, inner_steps=4)
    results = run(s.graph, plain(s, inversion), found[2], sample(s, found, inversion[1]))
    uncorrected, corrected, sampled = (result["samples"] for result in results)
    assert distance(corrected, picture()) < 0.5 * distance(uncorrected, picture())
    assert distance(sampled, corrected) < near


def test_without_inner_steps_the_prompt_is_the_negative() -> None:
    s = scene(SIX_STEPS, model=calm())
    inversion = invert(s, picture())
    found = optimize(s, inversion, inner_steps=0)
    same = s.graph.add(
        "KSamplerAdvanced", model=s.model, add_noise="disable", noise_seed=0, steps=6, cfg=7.5,
        sampler_name="euler", scheduler="normal", positive=s.text(SOURCE),
        negative=s.text(SOURCE), latent_image=inversion[1], start_at_step=0,
        end_at_step=10000, return_with_leftover_noise="disable",
    )  # fmt: skip
    at_any_cfg = [sample(s, found, inversion[1], cfg=cfg) for cfg in (7.5, 3.0, 1.0)]
    expected, *others = (out["samples"] for out in run(s.graph, same, found[2], *at_any_cfg))
    for other in others:
        assert distance(other, expected) < 1e-4


def test_a_network_that_fails_keeps_what_was_good(caplog: pytest.LogCaptureFixture) -> None:
    model = calm()
    calls = 0

    def fails_late(apply_model: Any, arguments: Any) -> Tensor:
        nonlocal calls
        trial = arguments["c"]["c_crossattn"].requires_grad
        calls += trial
        out = apply_model(arguments["input"], arguments["timestep"], **arguments["c"])
        return out * torch.nan if trial and calls == 9 else out

    broken = model.clone()
    broken.set_model_unet_function_wrapper(fails_late)
    s = scene(SIX_STEPS, model=broken)
    inversion = invert(s, picture())
    found = optimize(s, inversion, inner_steps=4)
    with caplog.at_level(logging.WARNING):
        result = run(s.graph, found[2])["samples"]
    assert "stopped at step 5 of 6, where the loss was no number" in caplog.text
    assert result.isfinite().all()


def test_it_says_what_it_cost(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        reconstruction(calm(), picture(), inner_steps=2)
    cost = re.search(r"(\d+) model evaluations and (\d+) gradients", caplog.text)
    assert cost is not None
    predictions, gradients = map(int, cost.groups())
    assert predictions == gradients + 2 * 6
    assert 0 < gradients <= 2 * 6
