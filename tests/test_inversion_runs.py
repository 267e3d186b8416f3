"""Inversion in parts of a schedule, in split runs, and what it leaves of the user's model."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from host_run import GraphError, Interrupted, Link, run
from model_state import cancel, disturbed, fail, snapshot
from scenes import SOURCE, Edit, Scene, Settings, distance, plain, scene
from tiny_model import shared_unet, tiny_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
SIX_STEPS = Settings(steps=6, width=64, height=96)
SWAP = Edit("swap", "a photo of a red dog on a bench")
BOTH = pytest.mark.parametrize("kind", ["P2PDDIMInvert", "P2PNoiseInvert"])


def picture(height: int = 12, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, 4, height, width, generator=generator) * 4


def invert(s: Scene, latent: Tensor, kind: str = "P2PDDIMInvert", **inputs: Any) -> Link:
    wired: dict[str, Any] = {"latent": s.graph.value({"samples": latent})}
    if kind == "P2PDDIMInvert":
        wired.update(model=s.model, positive=s.text(SOURCE))
    else:
        wired.update(seed=5)
    schedule = {"steps": s.settings.steps, "scheduler": s.settings.scheduler}
    return s.graph.add(kind, **{**wired, **schedule, **inputs})


def check(out: Tensor, latent: Tensor) -> None:
    """The source is the very picture, and the edit another one."""
    assert torch.equal(out[:1], latent)
    assert out.isfinite().all()
    assert not torch.allclose(out[1], out[0], rtol=1e-2)


@BOTH
@pytest.mark.parametrize("denoise", [0.5, 0.33])
def test_a_part_by_denoise(kind: str, denoise: float) -> None:
    s = scene(SIX_STEPS)
    inversion = invert(s, picture(), kind, denoise=denoise)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    sampled = s.sample(control, control[1], control[2], denoise=denoise)
    out, sigmas = run(s.graph, sampled, inversion[2])
    assert len(sigmas) == 7
    assert sigmas[0] < 5
    check(out["samples"], picture())


def sample_custom(s: Scene, control: Link, sigmas: Link) -> Link:
    return s.graph.add(
        "SamplerCustom", model=control, add_noise=True, noise_seed=4, cfg=s.settings.cfg,
        positive=control[1], negative=s.negative, latent_image=control[2], sigmas=sigmas,
        sampler=s.graph.add("KSamplerSelect", sampler_name="euler"),
    )  # fmt: skip


@BOTH
@pytest.mark.parametrize("own", [True, False])
def test_a_part_by_sigmas(kind: str, own: bool) -> None:
    """The sampler may take the scheduler's sigmas or the inversion's."""
    s = scene(SIX_STEPS)
    wired = {"model": s.model, "scheduler": "karras", "steps": 6, "denoise": 0.5}
    sigmas = s.graph.add("BasicScheduler", **wired)
    inversion = invert(s, picture(), kind, sigmas=sigmas)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    out = run(s.graph, sample_custom(s, control, inversion[2] if own else sigmas))
    check(out["samples"], picture())


@BOTH
@pytest.mark.parametrize("wired", ["inversion", "picture"])
def test_the_end_of_a_longer_inversion(kind: str, wired: str) -> None:
    """As if the picture had been inverted that far; no row begins under the sampler's noise."""
    s = scene(SIX_STEPS)

    def sampled(seed: int, **inputs: Any) -> Link:
        inversion = invert(s, picture(), kind, **inputs)
        latent = inversion[1] if wired == "inversion" else s.graph.value({"samples": picture()})
        control = s.control(SWAP, inversion=inversion, latent=latent)
        return s.sample(control, control[1], control[2], steps=3, denoise=0.5, seed=seed)

    long, reseeded = sampled(1, steps=6), sampled(2, steps=6)
    short, one, other = run(s.graph, sampled(1, steps=3, denoise=0.5), long, reseeded)
    check(one["samples"], picture())
    assert torch.equal(one["samples"], other["samples"])
    assert distance(one["samples"], short["samples"]) < 1e-5


@BOTH
@pytest.mark.parametrize("split", [1, 3, 5])
def test_a_run_split_over_two_samplers(kind: str, split: int) -> None:
    s = scene(SIX_STEPS)
    inversion = invert(s, picture(), kind)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    shared = {
        "model": control, "positive": control[1], "negative": s.negative, "noise_seed": 4,
        "steps": 6, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal",
    }  # fmt: skip
    first = s.graph.add(
        "KSamplerAdvanced", **shared, add_noise="enable", latent_image=control[2],
        start_at_step=0, end_at_step=split, return_with_leftover_noise="enable",
    )  # fmt: skip
    second = s.graph.add(
        "KSamplerAdvanced", **shared, add_noise="disable", latent_image=first,
        start_at_step=split, end_at_step=10000, return_with_leftover_noise="disable",
    )  # fmt: skip
    halfway, out = run(s.graph, first, second)
    assert not torch.equal(halfway["samples"][:1], picture())
    check(out["samples"], picture())


@pytest.mark.parametrize("denoise", [1.0, 0.5])
@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_every_scheduler_gives_the_samplers_own_levels(scheduler: str, denoise: float) -> None:
    """Also with a number of steps that does not divide the model's 1000."""
    s = scene(SIX_STEPS.but(steps=7, scheduler=scheduler))
    sigmas = run(s.graph, invert(s, picture(), "P2PNoiseInvert", denoise=denoise)[2])
    sampler = comfy.samplers.KSampler(shared_unet(), 7, "cpu", "euler", scheduler, denoise)
    assert torch.equal(sigmas, sampler.sigmas)


@BOTH
def test_a_single_step(kind: str) -> None:
    s = scene(SIX_STEPS.but(steps=1))
    inversion = invert(s, picture(), kind)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    check(run(s.graph, s.sample(control, control[1], control[2]))["samples"], picture())


@BOTH
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (8, 40)])
def test_odd_sizes(kind: str, size: tuple[int, int]) -> None:
    s = scene(SIX_STEPS.but(steps=2))
    inversion = invert(s, picture(*size), kind)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    out = run(s.graph, s.sample(control, control[1], control[2]))["samples"]
    check(out, picture(*size))


@BOTH
def test_the_samplers_seed_does_not_matter(kind: str) -> None:
    s = scene(SIX_STEPS)
    inversion = invert(s, picture(), kind)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    sampled = [s.sample(control, control[1], control[2], seed=seed) for seed in (1, 2)]
    one, other = run(s.graph, *sampled)
    assert torch.equal(one["samples"], other["samples"])


@pytest.mark.parametrize("how", ["run", "error", "cancel"])
@pytest.mark.parametrize("iterations", [0, 2])
def test_the_model_is_bit_identical_afterwards(how: str, iterations: int) -> None:
    model = tiny_unet(seed=5)
    image = plain(SOURCE, SIX_STEPS, model=model)  # also loads it
    weights, hung = snapshot(model)
    inverted(model, iterations)
    if how == "error":
        with pytest.raises(GraphError, match="someone else fails"):
            inverted(disturbed(model, 4, fail), iterations)
    elif how == "cancel":
        with pytest.raises(Interrupted):
            inverted(disturbed(model, 4, cancel), iterations)
    weights_after, hung_after = snapshot(model)
    torch.testing.assert_close(weights_after, weights, rtol=0, atol=0)
    assert hung_after == hung
    assert torch.equal(plain(SOURCE, SIX_STEPS, model=model), image)


def inverted(model: ModelPatcher, iterations: int) -> Tensor:
    s = scene(SIX_STEPS, model=model)
    return run(s.graph, invert(s, picture(), fixed_point_iterations=iterations)[1])["samples"]


def test_the_inverted_latent_stays_as_it_was() -> None:
    latent, kept = picture(), picture()
    s = scene(SIX_STEPS)
    for kind in ("P2PDDIMInvert", "P2PNoiseInvert"):
        run(s.graph, invert(s, latent, kind))
    assert torch.equal(latent, kept)
