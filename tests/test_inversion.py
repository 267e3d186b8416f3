"""Inverted pictures on the real host: DDIM inversion, and edits whose source is pinned to it."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from host_run import Link, run
from scenes import NEGATIVE, SOURCE, Edit, Scene, Settings, distance, scene
from tiny_model import TinySD15V, shared_clip, shared_unet, tiny_unet
from torch import Tensor

from p2p_core.inversion import Inversion

pytestmark = pytest.mark.usefixtures("host")

TEN_STEPS = Settings(steps=10)
SWAP = Edit("swap", "a photo of a red dog on a bench")


def picture(batch: int = 1, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(3)) * 4


def invert(s: Scene, latent: Link, **inputs: object) -> Link:
    settings = {"steps": s.settings.steps, "scheduler": s.settings.scheduler}
    wired = {"model": s.model, "positive": s.text(SOURCE), "latent": latent, **settings}
    return s.graph.add("P2PDDIMInvert", **{**wired, **inputs})


def edited(
    s: Scene, latent: Tensor, *edits: Edit, inverter: str = "ddim", **inputs: object
) -> Tensor:
    """Latents of an edit whose source is pinned to an inversion."""
    link = s.graph.value({"samples": latent})
    if inverter == "noise":
        settings = {"steps": s.settings.steps, "scheduler": s.settings.scheduler}
        inversion = s.graph.add("P2PNoiseInvert", latent=link, seed=5, **settings)
    else:
        inversion = invert(s, link)
    control = s.control(*edits, inversion=inversion, latent=inversion[1])
    return run(s.graph, s.sample(control, control[1], control[2], **inputs))["samples"]


@pytest.mark.parametrize("kind", [None, TinySD15V])
def test_inversion_is_the_hosts_own_flipped_euler(kind: type | None) -> None:
    s = scene(TEN_STEPS, model=tiny_unet(kind) if kind else None)
    latent = s.graph.value({"samples": picture(2)})
    inversion = invert(s, latent)
    flipped = s.graph.add("FlipSigmas", sigmas=inversion[2])
    chain = s.graph.add(
        "SamplerCustom", model=s.model, add_noise=False, noise_seed=0, cfg=1.0,
        positive=s.text(SOURCE), negative=s.negative, sigmas=flipped, latent_image=latent,
        sampler=s.graph.add("KSamplerSelect", sampler_name="euler"),
    )  # fmt: skip
    ours, theirs = run(s.graph, inversion[1], chain)
    assert distance(ours["samples"], theirs["samples"]) < 1e-5


@pytest.mark.parametrize("sampler_name", ["euler", "ddim", "heun", "dpmpp_2m", "res_multistep"])
@pytest.mark.parametrize("inverter", ["ddim", "noise"])
def test_a_pinned_source_comes_back_bit_for_bit(sampler_name: str, inverter: str) -> None:
    s = scene(TEN_STEPS.but(sampler_name=sampler_name, cfg=7.5))
    latent = picture(2)
    out = edited(s, latent, SWAP, Edit("refine", f"{SOURCE}, oil"), inverter=inverter)
    assert torch.equal(out[::3], latent)
    assert out.isfinite().all()
    assert distance(out[1], out[0]) > 1e-2


@pytest.mark.parametrize("inverter", ["ddim", "noise"])
def test_outside_a_blend_the_photograph_stays_bit_for_bit(inverter: str) -> None:
    s = scene(TEN_STEPS)
    latent = picture()
    region = torch.zeros(1, 128, 128)
    region[:, 32:96, 32:96] = 1
    link = s.graph.value({"samples": latent})
    levels = {"steps": 10, "scheduler": "normal"}
    if inverter == "ddim":
        inversion = invert(s, link)
    else:
        inversion = s.graph.add("P2PNoiseInvert", latent=link, seed=5, **levels)
    edit = s.graph.add(
        "P2PLocalBlendMask", edit=SWAP.build(s.graph, s.clip), mask=s.graph.value(region),
        source_words="", target_words="", threshold=0.3, start_blend=0.0,
    )  # fmt: skip
    control = s.control(edit=edit, inversion=inversion, latent=inversion[1])
    source, edited_ = run(s.graph, s.sample(control, control[1], control[2]))["samples"]
    assert torch.equal(source, latent[0])
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[3:13, 3:13] = False
    assert torch.equal(edited_[:, outside], latent[0][:, outside])
    assert distance(edited_[:, 5:11, 5:11], latent[0][:, 5:11, 5:11]) > 1e-2


def test_without_windows_the_edit_is_the_target_sampled_from_the_inverted_noise() -> None:
    latent = picture()
    out = edited(scene(TEN_STEPS), latent, Edit("swap", SWAP.target, cross=0.0, self_=0.0))
    s = scene(TEN_STEPS)
    start = invert(s, s.graph.value({"samples": latent}))
    plain = s.graph.add(
        "KSamplerAdvanced", model=s.model, add_noise="disable", noise_seed=0, steps=10,
        cfg=s.settings.cfg, sampler_name="euler", scheduler="normal",
        positive=s.text(SWAP.target), negative=s.negative, latent_image=start[1],
        start_at_step=0, end_at_step=10, return_with_leftover_noise="disable",
    )  # fmt: skip
    assert distance(out[1:], run(s.graph, plain)["samples"]) < 1e-5


def test_pinned_to_its_own_path_a_run_stays_what_it_is() -> None:
    """The source row's path, given as an inversion, changes neither the source nor the edit."""
    s = scene(TEN_STEPS)
    model, clip = shared_unet(), shared_clip()
    states: list[Tensor] = []
    control = s.control(SWAP)
    free = run(s.graph, s.sample(control, control[1], control[2]))["samples"]
    texts = [clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (SOURCE, NEGATIVE)]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 10)
    zeros = torch.zeros(1, 4, 16, 16)
    final = comfy.sample.sample_custom(
        model, comfy.sample.prepare_noise(zeros, s.settings.seed), s.settings.cfg,
        comfy.samplers.sampler_object("euler"), sigmas, *texts, zeros,
        callback=lambda step, x0, x, steps: states.append(x.clone()),
    )  # fmt: skip
    clean = model.model.process_latent_in(final)
    offsets = torch.stack([*states, clean]) - clean
    inversion = Inversion(final, final, sigmas, offsets, "ddim")
    s = scene(TEN_STEPS)
    latent = s.graph.value({"samples": final})
    control = s.control(SWAP, latent=latent, inversion=s.graph.value(inversion))
    pinned = run(s.graph, s.sample(control, control[1], control[2]))["samples"]
    assert distance(pinned, free) < 1e-5


@pytest.mark.parametrize("edits", [0, 1, 2])
def test_a_pinned_source_is_not_evaluated_without_its_prompt(edits: int) -> None:
    latent = picture(2)
    targets = [SWAP, Edit("refine", f"{SOURCE}, oil")][:edits]
    rows: list[int] = []
    model = shared_unet()
    unet = model.model.diffusion_model
    hook = unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    try:
        less = pinned_run(model, latent, targets)
        fewer, rows[:] = list(rows), []
        # Another pack's patch may count rows, so then all of them are there.
        watched = model.clone()
        watched.set_model_attn2_output_patch(lambda n, extra: n)
        all_rows = pinned_run(watched, latent, targets)
    finally:
        hook.remove()
    assert set(fewer[10:]) == {2 * (2 * edits + 1)}
    assert set(rows[10:]) == {2 * (2 * edits + 2)}
    assert distance(less, all_rows) < 1e-5


@pytest.mark.parametrize("sampler_name", ["heun", "heunpp2", "exp_heun_2_x0", "dpm_2"])
def test_leaving_rows_out_changes_nothing_between_steps(sampler_name: str) -> None:
    """Where a sampler asks the model twice a step, the source is on its path both times."""
    settings = TEN_STEPS.but(sampler_name=sampler_name)
    watched = shared_unet().clone()
    watched.set_model_attn2_output_patch(lambda n, extra: n)
    less, all_rows = (
        sampled_on_the_inversions_levels(settings, model) for model in (shared_unet(), watched)
    )
    assert distance(less, all_rows) < 1e-5


def sampled_on_the_inversions_levels(settings: Settings, model: ModelPatcher) -> Tensor:
    """By SamplerCustom: KSampler would give dpm_2 levels of its own."""
    s = scene(settings, model=model)
    inversion = invert(s, s.graph.value({"samples": picture()}))
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    out = s.graph.add(
        "SamplerCustom", model=control, add_noise=True, noise_seed=4, cfg=settings.cfg,
        positive=control[1], negative=s.negative, latent_image=control[2], sigmas=inversion[2],
        sampler=s.graph.add("KSamplerSelect", sampler_name=settings.sampler_name),
    )  # fmt: skip
    return run(s.graph, out)["samples"]


def pinned_run(model: ModelPatcher, latent: Tensor, targets: list[Edit]) -> Tensor:
    s = scene(TEN_STEPS, model=model)
    if targets:
        return edited(s, latent, *targets)
    inversion = invert(s, s.graph.value({"samples": latent}))
    plain = s.graph.add("P2PPlainPrompt", clip=s.clip, prompt=SOURCE)
    control = s.control(edit=plain, inversion=inversion, latent=inversion[1])
    return run(s.graph, s.sample(control, control[1], control[2]))["samples"]
