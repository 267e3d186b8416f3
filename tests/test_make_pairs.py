"""P2P Make Pairs makes what its parts make by hand, and the same again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_run import Graph, GraphError, Link, run

from p2p_core.pairs import Captions, Recipe

pytestmark = pytest.mark.usefixtures("host")
CAPTIONS = Captions("a cat on the grass", "turn it into a dog", "a dog on the grass")
SAMPLING = {"steps": 3, "sampler_name": "euler_ancestral", "scheduler": "karras"}


def graph(batch: int = 1, **inputs: Any) -> tuple[Graph, Link, Link]:
    """A graph, the demo model's node, and that of two pairs."""
    made = Graph()
    demo = made.add("P2PDemoModel")
    size = {"width": 128, "height": 128, "batch_size": batch}
    wired = {
        "model": demo, "clip": demo[1], "vae": demo[2], "seed": 5, "samples": 2,
        "latent": made.add("EmptyLatentImage", **size), "source_caption": CAPTIONS.source,
        "edited_caption": CAPTIONS.edited, "instruction": CAPTIONS.instruction, **SAMPLING,
    }  # fmt: skip
    return made, demo, made.add("P2PMakePairs", **{**wired, **inputs})


def by_hand(made: Graph, demo: Link, recipe: Recipe, number: int) -> Link:
    """The decoded pictures of one draw, from the edit's own nodes and an ordinary KSampler."""
    draw = recipe.draws(5, CAPTIONS.key)[number]
    edit = made.add(
        "P2PWordSwap", clip=demo[1], source_prompt=CAPTIONS.source, target_prompt=CAPTIONS.edited,
        cross_replace_steps=draw.cross, self_replace_steps=draw.self_,
    )  # fmt: skip
    size = {"width": 128, "height": 128, "batch_size": recipe.together}
    latent = made.add("EmptyLatentImage", **size)
    control = made.add("P2PAttentionController", model=demo, latent=latent, edit=edit)
    samples = made.add(
        "KSampler", model=control, positive=control[1], latent_image=control[2], seed=draw.seed,
        negative=made.add("CLIPTextEncode", clip=demo[1], text=""), cfg=draw.cfg, denoise=1.0,
        **SAMPLING,
    )  # fmt: skip
    return made.add("VAEDecode", samples=samples, vae=demo[2])


@pytest.mark.parametrize(
    ("inputs", "recipe"),
    [
        ({}, Recipe()),
        (
            {"shares": "one for each", "share_min": 0, "share_max": 0, "cfg_min": 2, "cfg_max": 3},
            Recipe(cross=(0, 0), self_=(0.1, 0.9), cfg=(2, 3)),
        ),
    ],
)
def test_a_pair_is_the_edit_of_its_draw(inputs: dict, recipe: Recipe) -> None:
    made, demo, node = graph(**inputs)
    hand = [by_hand(made, demo, recipe, number) for number in range(2)]
    source, edited, pairs, *pictures = run(made, node, node[1], node[2], *hand)
    for number, (before, after) in enumerate(pictures):
        torch.testing.assert_close(source[number], before.clamp(0, 1), atol=1e-5, rtol=0)
        torch.testing.assert_close(edited[number], after.clamp(0, 1), atol=1e-5, rtol=0)
    assert (source - edited).abs().mean((1, 2, 3)).min() > 1e-3
    assert pairs.captions == CAPTIONS and pairs.draws == tuple(recipe.draws(5, CAPTIONS.key)[:2])
    assert pairs.source is source and pairs.edited is edited


def test_more_samples_leave_the_first_ones_as_they_are() -> None:
    """Also where the last batch is not full."""
    few, _, two = graph(batch=2, samples=1)
    many, demo, node = graph(batch=2, samples=3)
    hand = by_hand(many, demo, Recipe(together=2), 0)
    first, (source, pictures) = run(few, two), run(many, node, hand)
    assert len(first) == 1 and len(source) == 3
    assert torch.equal(first[0], source[0])
    torch.testing.assert_close(source[:2], pictures[::2].clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"edited_caption": " "}, "edited_caption is empty"),
        ({"share_min": 0.9, "share_max": 0.2}, r"share_min and share_max must be a range"),
        ({"cfg_min": 9.0, "cfg_max": 8.0}, r"cfg must be a range .* got \(9, 8\)"),
    ],
)
def test_bad_input(inputs: dict, match: str) -> None:
    made, _, node = graph(**inputs)
    with pytest.raises(GraphError, match=match) as error:
        run(made, node)
    assert error.value.is_sentence
