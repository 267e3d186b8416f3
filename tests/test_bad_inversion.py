"""Mistakes around inversion: one sentence tells what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from host_run import GraphError, Link, run
from scenes import SOURCE, Edit, Scene, Settings, scene
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
FOUR_STEPS = Settings(steps=4, width=64, height=64)
SWAP = Edit("swap", "a photo of a red dog on a bench")
DETERMINISTIC = "Use a deterministic sampler: euler, ddim, heun, dpmpp_2m"


def picture(*shape: int) -> Tensor:
    return torch.randn(*(shape or (1, 4, 8, 8)), generator=torch.Generator().manual_seed(3)) * 4


def invert(s: Scene, latent: Link | Tensor | None = None, **inputs: Any) -> Link:
    """A DDIM inversion; its outputs are inversion, latent, sigmas."""
    if not isinstance(latent, Link):
        latent = s.graph.value({"samples": picture() if latent is None else latent})
    wired = {"model": s.model, "positive": s.text(SOURCE), "latent": latent}
    schedule = {"steps": s.settings.steps, "scheduler": s.settings.scheduler}
    return s.graph.add("P2PDDIMInvert", **{**wired, **schedule, **inputs})


def edit(s: Scene, edit: Edit = SWAP, **sampling: Any) -> Link:
    inversion = invert(s)
    control = s.control(edit, inversion=inversion, latent=inversion[1])
    return s.sample(control, control[1], control[2], **sampling)


def masked(s: Scene, latent: Link) -> Link:
    mask = s.graph.add("SolidMask", value=1.0, width=64, height=64)
    return s.graph.add("SetLatentNoiseMask", samples=latent, mask=mask)


@pytest.mark.parametrize(
    ("sampler_name", "message"),
    [
        ("euler_ancestral", f"euler_ancestral adds noise at every step.*{DETERMINISTIC}"),
        ("dpmpp_2m_sde", f"dpmpp_2m_sde adds noise at every step.*{DETERMINISTIC}"),
        ("lcm", f"lcm adds noise at every step.*{DETERMINISTIC}"),
        ("dpm_adaptive", f"dpm_adaptive.*adds noise.*{DETERMINISTIC}"),
        ("euler_cfg_pp", "An inversion cannot keep the source under.*euler_cfg_pp.*Use euler"),
    ],
)
def test_samplers(sampler_name: str, message: str) -> None:
    s = scene(FOUR_STEPS)
    with pytest.raises(GraphError, match=message):
        run(s.graph, edit(s, sampler_name=sampler_name))


@pytest.mark.parametrize(
    ("sampling", "run_is"),
    [
        ({"steps": 5}, r"the sampler 5 \(sigmas"),
        ({"steps": 1}, r"the sampler 1 \(sigmas"),
        ({"scheduler": "karras"}, r"the sampler 4 \(sigmas 14.61, 3.169"),
        ({"denoise": 0.5}, r"the sampler 4 \(sigmas"),
        ({"sampler_name": "dpm_2"}, r"the sampler 4 \(sigmas"),
        ({"sampler_name": "uni_pc"}, r"the sampler 4 \(sigmas"),
    ],
)
def test_schedules(sampling: dict[str, Any], run_is: str) -> None:
    s = scene(FOUR_STEPS)
    ours = r"the inversion has 4 steps \(sigmas 14.61, 2.9\d*, 0.\d+\)"
    todo = "same steps.*dpm_2 and uni_pc at levels of their own: use euler.*inversion's sigmas"
    with pytest.raises(GraphError, match=f"{ours}, {run_is}.*{todo}"):
        run(s.graph, edit(s, **sampling))


@pytest.mark.parametrize(
    ("levels", "got"),
    [
        ([], r"got 0 levels \(none"),
        ([0.0], r"got 1 levels \(0 "),
        ([1.0], r"got 1 levels"),
        ([0.0, 1.0, 14.0], r"got 3 levels \(0, 1, 14"),
        ([14.0, 3.0, 1.0], r"got 3 levels \(14, 3, 1"),
        ([14.0, 3.0, 3.0, 0.0], "got 4 levels"),
        ([14.0, float("nan"), 0.0], "got 3 levels"),
        ([float("inf"), 3.0, 0.0], "got 3 levels"),
        ([14.0, 0.0, -1.0], "got 3 levels"),
    ],
)
@pytest.mark.parametrize("kind", ["P2PDDIMInvert", "P2PNoiseInvert"])
def test_sigmas(levels: list[float], got: str, kind: str) -> None:
    s = scene(FOUR_STEPS)
    sigmas = s.graph.value(torch.tensor(levels))
    if kind == "P2PDDIMInvert":
        inversion = invert(s, sigmas=sigmas)
    else:
        latent = s.graph.value({"samples": picture()})
        wired = {"latent": latent, "seed": 1, "steps": 4, "scheduler": "normal"}
        inversion = s.graph.add(kind, sigmas=sigmas, **wired)
    with pytest.raises(GraphError, match=f"descends to 0.*{got}.*Do not flip it"):
        run(s.graph, inversion)


def with_other_latent(s: Scene, *shape: int) -> Link:
    latent = s.graph.value({"samples": picture(*shape)})
    return s.control(SWAP, inversion=invert(s), latent=latent)


def with_mask(s: Scene) -> Link:
    inversion = invert(s)
    control = s.control(SWAP, inversion=inversion, latent=masked(s, inversion[1]))
    return s.sample(control, control[1], control[2])


def with_other_rows(s: Scene) -> Link:
    inversion = invert(s)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    more = s.graph.value({"samples": picture(4, 4, 8, 8), "batch_index": [0, 0, 0, 0]})
    return s.sample(control, control[1], more)


def with_uni_pc(s: Scene) -> Link:
    """With the inversion's own noise levels, which KSampler would not give it."""
    inversion = invert(s)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    return s.graph.add(
        "SamplerCustom", model=control, add_noise=True, noise_seed=4, cfg=3.0,
        positive=control[1], negative=s.negative, latent_image=control[2], sigmas=inversion[2],
        sampler=s.graph.add("KSamplerSelect", sampler_name="uni_pc"),
    )  # fmt: skip


STILL = r"Inversion takes still pictures.*got 5 dimensions.*Use VAEEncode"


def with_flow(s: Scene) -> Link:
    model = s.graph.add("ModelSamplingSD3", model=s.model, shift=3.0)
    return invert(s, model=model)


def with_broken_picture(s: Scene) -> Link:
    return invert(s, s.graph.value({"samples": picture() * float("nan")}))


def noise_invert(s: Scene, samples: torch.Tensor, model: Link | None = None) -> Link:
    wired = {"latent": s.graph.value({"samples": samples}), "seed": 1, "model": model}
    return s.graph.add("P2PNoiseInvert", steps=4, scheduler="normal", **wired)


def guided(s: Scene) -> Link:
    return s.graph.add("RescaleCFG", model=s.model, multiplier=0.7)


def flow(s: Scene) -> Link:
    return s.graph.add("ModelSamplingSD3", model=s.model, shift=3.0)


def with_replaced_latent(s: Scene) -> Link:
    """The controller's latent cut on its way to the sampler."""
    inversion = invert(s)
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    cut = s.graph.value({"samples": torch.zeros(2, 4, 8, 6), "batch_index": [0, 0]})
    return s.sample(control, control[1], cut)


WIRINGS: dict[str, tuple[Callable[[Scene], Link], str]] = {
    "another size in the sampler": (
        with_replaced_latent, r"latents of shape \(4, 8, 8\), but the sampler got \(4, 8, 6\)",
    ),
    "guidance that another node mixes": (
        lambda s: invert(s, model=guided(s)), "guidance is computed.*Wire the model without it",
    ),
    "channels of another family": (
        lambda s: invert(s, s.graph.value({"samples": picture(1, 16, 8, 8)})),
        "1 pictures of 16 channels, but the model reads 4.*VAE of the model's own",
    ),
    "channels of another family under noise": (
        lambda s: noise_invert(s, picture(1, 16, 8, 8)), "16 channels, but the model reads 4",
    ),
    "no prompt at all": (
        lambda s: invert(s, positive=s.graph.value([])), "positive is an empty conditioning",
    ),
    "a broken picture under noise": (
        lambda s: noise_invert(s, picture() * float("nan")), "values that are no numbers.*fp32-vae",
    ),
    "a flow model under noise": (
        lambda s: noise_invert(s, picture(), flow(s)), "P2P Noise Invert needs.*is a flow model",
    ),
    "a video": (lambda s: invert(s, picture(1, 4, 2, 8, 8)), STILL),
    "a mask on the picture": (
        lambda s: invert(s, masked(s, s.graph.value({"samples": picture()}))),
        "whole pictures, but this latent has a noise mask.*P2P Local Blend Mask",
    ),
    "a mask in the sampler": (
        with_mask, "cannot be sampled through a noise mask.*P2P Local Blend Mask",
    ),
    "the controller's model": (
        lambda s: invert(s, model=s.control(SWAP)),
        "needs the unpatched model, but.*AttentionController.*checkpoint's model",
    ),
    "the controller's positive": (
        lambda s: invert(s, positive=s.control(SWAP)[1]),
        "positive comes from an AttentionController.*CLIPTextEncode of the source prompt",
    ),
    "another source prompt": (
        lambda s: edit(s, Edit("swap", "a bush", "a tree")),
        "source prompt is 'a tree'.*under another prompt.*source prompt of the edit",
    ),
    "a latent of another size": (
        lambda s: with_other_latent(s, 1, 4, 8, 16),
        r"holds a latent of shape \(1, 4, 8, 8\).*got one of \(1, 4, 8, 16\).*latent output",
    ),
    "a latent of more pictures": (
        lambda s: with_other_latent(s, 2, 4, 8, 8),
        r"holds a latent of shape \(1, 4, 8, 8\).*got one of \(2, 4, 8, 8\).*latent output",
    ),
    "a flow model": (with_flow, "is a flow model. Load such a checkpoint"),
    "a broken picture": (with_broken_picture, "no numbers from noise level 0 on.*in fp32"),
    "uni_pc": (with_uni_pc, "inversion cannot keep the source under the sampler uni_pc.*Use euler"),
    "another latent in the sampler": (
        with_other_rows, "inversion holds 1 pictures.*latent batch of 2, but got 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WIRINGS)
def test_wiring(name: str) -> None:
    wire, message = WIRINGS[name]
    s = scene(FOUR_STEPS)
    with pytest.raises(GraphError, match=message):
        run(s.graph, wire(s))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"steps": 0}, "smaller than min.*steps"),
        ({"denoise": 0.0}, "smaller than min.*denoise"),
        ({"denoise": 1.5}, "bigger than max.*denoise"),
        ({"denoise": float("nan")}, "denoise must be a share above 0.*got nan"),
        ({"fixed_point_iterations": -1}, "smaller than min.*fixed_point_iterations"),
        ({"scheduler": "none"}, "not in list.*scheduler"),
        ({"scheduler": "kl_optimal", "steps": 1}, "kl_optimal gives no noise levels for 1 steps"),
    ],
)
def test_numbers(inputs: dict[str, Any], message: str) -> None:
    s = scene(FOUR_STEPS)
    with pytest.raises(GraphError, match=message):
        run(s.graph, invert(s, **inputs))
