"""IP2PConditioning beside other patches of guidance and attention, and with little memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from host_run import Link, run
from scenes import Edit, distance
from tiny_instruct import (
    SHORT,
    InstructScene,
    counted,
    instruct_scene,
    latents,
    pictures,
    shared_instruct,
    tiny_instruct,
)
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
Patch = Callable[[InstructScene, Link], Link]


def rescale(s: InstructScene, model: Link, multiplier: float = 0.7) -> Link:
    return s.scene.graph.add("RescaleCFG", model=model, multiplier=multiplier)


def pag(s: InstructScene, model: Link) -> Link:
    return s.scene.graph.add("PerturbedAttentionGuidance", model=model, scale=2.0)


def sag(s: InstructScene, model: Link) -> Link:
    return s.scene.graph.add("SelfAttentionGuidance", model=model, scale=0.5, blur_sigma=2.0)


def freeu(s: InstructScene, model: Link) -> Link:
    return s.scene.graph.add("FreeU_V2", model=model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)


@pytest.mark.parametrize("patch", [rescale, pag, sag, freeu])
def test_core_patches_in_both_orders(patch: Patch) -> None:
    s = instruct_scene(image=pictures(1, 128, 128))
    after = s.sample(model=patch(s, s.node))
    early = instruct_scene(image=pictures(1, 128, 128))
    patched = patch(early, early.scene.model)
    early.scene.graph.prompt[early.node.node]["inputs"]["model"] = [patched.node, 0]
    results = latents(s, after), latents(early, early.sample()), latents(s, s.sample())
    assert distance(results[0], results[1]) < 1e-5
    assert distance(results[0], results[2]) > 1e-3


def denoised_once(s: InstructScene, link: Link) -> Tensor:
    """A run of one Euler step gives the denoised latent; in the model's scale."""
    return shared_instruct().model.process_latent_in(latents(s, link))


@pytest.mark.parametrize("multiplier", [1.0, 0.7])
def test_rescaled_guidance_is_exact(multiplier: float) -> None:
    """Equation 3, brought to the deviation of the instruction's own prediction in v."""
    s = instruct_scene(SHORT.but(steps=1))
    ours = denoised_once(s, s.sample(model=rescale(s, s.node, multiplier)))
    guided = denoised_once(s, s.dual())
    text = denoised_once(s, s.dual(cfg_conds=1.0, cfg_cond2_negative=1.0))
    empty = torch.zeros_like(ours)
    sigma = shared_instruct().get_model_object("model_sampling").sigma_max
    x = comfy.sample.prepare_noise(empty, SHORT.seed) * (1 + sigma**2) ** 0.5
    scale = (sigma**2 + 1) ** 0.5 / sigma

    def velocity(denoised: Tensor) -> Tensor:
        return (x / (sigma**2 + 1) - denoised) * scale

    v = velocity(guided)
    factor = velocity(text).std(dim=(1, 2, 3)) / v.std(dim=(1, 2, 3))
    v = v * (multiplier * factor + 1 - multiplier)
    assert distance(ours, x / (sigma**2 + 1) - v / scale) < 1e-5


@pytest.mark.parametrize("cfg", [7.5, 1.2, 1.0])
def test_other_packs_see_an_ordinary_pair(cfg: float) -> None:
    """Before and after guidance, also where cfg 1 leaves the negative out."""
    seen: list[dict[str, Any]] = []

    def before(args: dict) -> list[Tensor]:
        assert len(args["conds_out"]) == 2
        return args["conds_out"]

    def after(args: dict) -> Tensor:
        seen.append(args)
        return args["denoised"]

    model = shared_instruct().clone()
    model.set_model_sampler_pre_cfg_function(before)
    model.set_model_sampler_post_cfg_function(after)
    s = instruct_scene(SHORT.but(cfg=cfg), model=model)
    ours, theirs = run(s.scene.graph, s.sample(), s.dual())
    assert distance(ours["samples"], theirs["samples"]) < 1e-5
    for args in seen[: SHORT.steps]:
        cond, uncond = args["cond_denoised"], args["uncond_denoised"]
        assert distance(uncond + args["cond_scale"] * (cond - uncond), args["denoised"]) < 1e-5


def test_another_packs_evaluation_is_kept() -> None:
    calls: list[int] = []

    def evaluate(args: dict) -> list[Tensor]:
        calls.append(len(args["conds"]))
        inputs = args["input"], args["sigma"], args["model_options"]
        return comfy.samplers.calc_cond_batch(args["model"], args["conds"], *inputs)

    model = shared_instruct().clone()
    model.set_model_sampler_calc_cond_batch_function(evaluate)
    s, plain = instruct_scene(model=model), instruct_scene()
    assert distance(latents(s, s.sample()), latents(plain, plain.sample())) < 1e-5
    assert calls == [2] * SHORT.steps


def test_patches_that_pick_by_cond_or_uncond() -> None:
    """IPAdapter-like packs take one of a pair for every chunk of the batch."""
    chunks: list[list[int]] = []

    def shifted(q: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
        numbers = extra["cond_or_uncond"]
        chunks.append(numbers)
        amounts = torch.tensor([(0.3, 0.1)[number] for number in numbers])
        rows = amounts.repeat_interleave(len(q) // len(numbers))
        return q, context + rows[:, None, None], value

    model = shared_instruct().clone()
    model.set_model_attn2_patch(shifted)
    s = instruct_scene(model=model)
    one = latents(s, s.sample())
    assert chunks[0] == [-1, 1, 0]
    assert chunks[0].index(1) == 1
    hungry = hungry_model(model)
    split = instruct_scene(model=hungry)
    assert distance(one, latents(split, split.sample())) < 1e-5


def hungry_model(like: ModelPatcher) -> ModelPatcher:
    """The same model for which the host finds too little memory for one batch."""
    hungry = tiny_instruct()
    hungry.model.memory_usage_factor = 1e9
    hungry.model_options = like.clone().model_options
    return hungry


def test_one_by_one_when_memory_is_short() -> None:
    hungry = hungry_model(shared_instruct())
    s, plain = instruct_scene(model=hungry), instruct_scene()
    with counted(hungry) as rows:
        split = latents(s, s.sample())
    assert rows == [1] * 3 * SHORT.steps
    assert distance(split, latents(plain, plain.sample())) < 1e-5


@pytest.mark.parametrize("cfg", [1.0, 1.5, 7.5])
@pytest.mark.parametrize(
    "name", [name for name in comfy.samplers.SAMPLER_NAMES if name.endswith("_cfg_pp")]
)
def test_samplers_that_step_along_uncond(name: str, cfg: float) -> None:
    s = instruct_scene(SHORT.but(sampler_name=name, cfg=cfg), image_cfg=2.0)
    assert distance(latents(s, s.sample()), latents(s, s.dual())) < 1e-5


def test_word_edits_of_an_instruction() -> None:
    """A Prompt-to-Prompt controller before the node: the source stays what it is alone."""
    edit = Edit("swap", "make it a photo of summer", source="make it a photo of winter")
    s = instruct_scene(image=pictures(1, 128, 128))
    graph = s.scene.graph
    blank = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    control = s.scene.control(edit, latent=blank)
    wired = {**s.inputs, "model": control, "positive": control[1]}
    node = graph.add("IP2PConditioning", **wired)
    edited, source = run(
        graph, s.scene.sample(node, node[1], control[2], negative=node[2]), s.sample()
    )
    assert distance(edited["samples"][:1], source["samples"]) < 1e-4
    assert distance(edited["samples"][1:], source["samples"]) > 1e-2
