"""Other patches, regions and the low-memory path beside the controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from host_run import Link, run
from scenes import SOURCE, Edit, Scene, Settings, controlled, distance, identity, plain, scene
from tiny_model import shared_unet, tiny_unet

pytestmark = pytest.mark.usefixtures("host")
TOLERANCE = 1e-4
SWAP = Edit("swap", "a photo of a blue dog on a bench")
SHORT = Settings(steps=6, width=64, height=96)
SQUARE = Settings(steps=6)
Add = Callable[[Scene, Link], Link]


def louder(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict) -> torch.Tensor:
    """A pack that replaces cross-attention by a plain function."""
    return 1.3 * optimized_attention(q, k, v, extra["n_heads"])


class ImagePrompt:
    """A pack that keeps an object on the block and adds to what it finds there."""

    def __init__(self, strength: float) -> None:
        self.strengths = [strength]

    def add(self, strength: float) -> None:
        self.strengths.append(strength)

    def __call__(self, q: Any, k: Any, v: Any, extra_options: dict) -> torch.Tensor:
        out = optimized_attention(q, k, v, extra_options["n_heads"])
        for strength in self.strengths:
            image = torch.sin(k[:, :4] * 3)
            out = out + strength * optimized_attention(q, image, image, extra_options["n_heads"])
        return out


def add_function(model: ModelPatcher) -> ModelPatcher:
    model = model.clone()
    for place, number in (("input", 1), ("middle", 0), ("output", 5)):
        model.set_model_attn2_replace(louder, place, number)
    return model


def add_image_prompt(model: ModelPatcher) -> ModelPatcher:
    model = model.clone()
    options = model.model_options["transformer_options"]
    options["patches_replace"] = replaces = {**options.get("patches_replace", {})}
    replaces["attn2"] = blocks = {**replaces.get("attn2", {})}
    for key in (("input", 3, 0), ("middle", 0, 0), ("output", 2, 0)):
        if key in blocks:
            blocks[key].add(0.4)
        else:
            blocks[key] = ImagePrompt(0.8)
    return model


@pytest.mark.parametrize("add", [add_function, add_image_prompt])
def test_attention_replacements_of_other_packs_in_both_orders(add: Callable) -> None:
    edits = [SWAP, identity()]
    before = controlled(edits, SHORT, model=add(shared_unet()))
    s = scene(SHORT)
    control = s.control(*edits)
    model, positive, latent = run(s.graph, control, control[1], control[2])
    again = scene(SHORT)
    parts = [again.graph.value(part) for part in (add(model), positive, latent)]
    after = run(again.graph, again.sample(*parts))["samples"]
    torch.testing.assert_close(after, before)
    source = plain(SOURCE, SHORT, model=add(shared_unet()))[0]
    assert distance(source, plain(SOURCE, SHORT)[0]) > 1e-2, "the other patch shows"
    assert distance(before[0], source) <= TOLERANCE
    assert distance(before[2], source) <= TOLERANCE
    assert distance(before[1], source) > 1e-2


def test_a_second_image_prompt_after_the_controller() -> None:
    s = scene(SHORT, model=add_image_prompt(shared_unet()))
    control = s.control(SWAP)
    model, positive, latent = run(s.graph, control, control[1], control[2])
    again = scene(SHORT)
    parts = [again.graph.value(part) for part in (add_image_prompt(model), positive, latent)]
    rows = run(again.graph, again.sample(*parts))["samples"]
    assert distance(rows[1], rows[0]) > 1e-2


def pag(s: Scene, model: Link) -> Link:
    return s.graph.add("PerturbedAttentionGuidance", model=model, scale=2.0)


def sag(s: Scene, model: Link) -> Link:
    return s.graph.add("SelfAttentionGuidance", model=model, scale=0.5, blur_sigma=2.0)


def freeu(s: Scene, model: Link) -> Link:
    return s.graph.add("FreeU_V2", model=model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)


@pytest.mark.parametrize("add", [pag, sag, freeu])
def test_core_patches_in_both_orders(add: Add) -> None:
    s = scene(SQUARE)
    edits = [SWAP, identity()]
    late = s.control(*edits)
    early = s.control(*edits, model=add(s, s.model))
    after, before, source = run(
        s.graph,
        s.sample(add(s, late), late[1], late[2]),
        s.sample(early, early[1], early[2]),
        s.sample(add(s, s.model), s.text(SOURCE), s.latent),
    )
    rows = before["samples"]
    assert distance(after["samples"], rows) <= TOLERANCE
    assert distance(rows[0], source["samples"][0]) <= TOLERANCE
    assert distance(rows[2], rows[0]) <= TOLERANCE
    assert distance(rows[1], rows[0]) > 1e-2


def area(s: Scene, positive: Link) -> Link:
    region = s.graph.add(
        "ConditioningSetArea", conditioning=positive, x=32, y=0, width=64, height=96, strength=1.0
    )
    return s.graph.add("ConditioningCombine", conditioning_1=region, conditioning_2=s.text("mist"))


def mask(s: Scene, positive: Link) -> Link:
    left = torch.zeros(1, 128, 128)
    left[..., :72] = 1
    region = s.graph.add(
        "ConditioningSetMask", conditioning=positive, mask=s.graph.value(left), strength=0.8,
        set_cond_area="default",
    )  # fmt: skip
    return s.graph.add("ConditioningCombine", conditioning_1=region, conditioning_2=s.text("mist"))


def timestep_range(s: Scene, positive: Link) -> Link:
    first = s.graph.add("ConditioningSetTimestepRange", conditioning=positive, start=0.0, end=0.6)
    rest = s.graph.add(
        "ConditioningSetTimestepRange", conditioning=s.text("mist"), start=0.4, end=1.0
    )
    return s.graph.add("ConditioningCombine", conditioning_1=first, conditioning_2=rest)


@pytest.mark.parametrize("confine", [area, mask, timestep_range])
def test_confined_conditionings(confine: Add) -> None:
    s = scene(SQUARE)
    control = s.control(SWAP, identity())
    edited, source, target = run(
        s.graph,
        s.sample(control, confine(s, control[1]), control[2]),
        s.sample(s.model, confine(s, s.text(SOURCE)), s.latent),
        s.sample(s.model, confine(s, s.text(SWAP.target)), s.latent),
    )
    rows = edited["samples"]
    assert distance(rows[0], source["samples"][0]) <= TOLERANCE
    assert distance(rows[2], rows[0]) <= TOLERANCE
    assert distance(rows[1], rows[0]) > 1e-3
    assert distance(rows[1], target["samples"][0]) > 1e-3


def test_chunks_evaluated_one_by_one() -> None:
    """The host splits positive and negative when memory is short."""
    calls = []

    def count(apply_model: Callable, arguments: Any) -> torch.Tensor:
        calls.append(len(arguments["cond_or_uncond"]))
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    hungry = tiny_unet(seed=1)
    hungry.model.memory_usage_factor = 1e9
    hungry.set_model_unet_function_wrapper(count)
    long = Edit("swap", SWAP.target + ", under very old trees with leaves" * 20)
    for edit in (SWAP, long):
        rows, expected = controlled([edit], SHORT, model=hungry), controlled([edit], SHORT)
        assert distance(rows, expected) <= TOLERANCE
    assert calls == [1] * 4 * SHORT.steps
