"""What the controller's modes and blocks mean on transformers, its maps, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from families import invented, streams
from families.edits import (
    EQUAL,
    LONGER,
    PLAIN,
    SOURCE,
    STEPS,
    SWAP,
    Case,
    How,
    clip_of,
    edit_of,
    edited,
    latent_of,
    model_of,
    plain,
    sampled,
)
from families.watching import pack
from host_run import Graph, GraphError, run
from scenes import distance
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host", "models")


def test_auto_is_qk_in_the_first_step_of_few() -> None:
    auto = edited(streams.FLUX_SCHNELL, [Case(EQUAL, "auto")], How(steps=4))
    first = edited(streams.FLUX_SCHNELL, [Case(EQUAL, "qk", self_=0.25)], How(steps=4))
    longer = edited(streams.FLUX_SCHNELL, [Case(EQUAL, "qk", self_=0.5)], How(steps=4))
    assert torch.equal(auto, first)
    assert not torch.equal(auto, longer)


def test_auto_takes_half_of_the_window_in_long_runs() -> None:
    auto = edited(streams.FLUX_SCHNELL, [Case(EQUAL, "auto", self_=0.4)], How(steps=10))
    half = edited(streams.FLUX_SCHNELL, [Case(EQUAL, "qk", self_=0.2)], How(steps=10))
    assert torch.equal(auto, half)


def test_the_identity_changes_nothing() -> None:
    made = edited(streams.QWEN_IMAGE, [Case(SOURCE, "hybrid")])
    assert distance(made[1:], made[:1]) < 1e-6


def test_chosen_blocks_alone_are_edited() -> None:
    whole = edited(streams.QWEN_IMAGE, [SWAP])
    assert torch.equal(edited(streams.QWEN_IMAGE, [SWAP], blocks="0-2"), whole)
    part = edited(streams.QWEN_IMAGE, [SWAP], blocks="1")
    assert distance(part[1:], whole[1:]) > 1e-4


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"blocks": "one"}, "blocks has 'one', which is no block or range of blocks"),
        ({"blocks": "2-1"}, "blocks has '2-1', which is no block or range of blocks"),
        ({"blocks": "0-9999999999"}, "which is no block or range of blocks"),
        ({"blocks": "1, 3"}, "blocks names block 3, but the words are read in 3 blocks of this"),
        (
            {"self_replace_tokens": 64},
            "self_replace_tokens of the AttentionController is for UNets",
        ),
    ],
)
def test_bad_inputs(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        edited(streams.QWEN_IMAGE, [SWAP], **inputs)


@pytest.mark.parametrize("network", [invented.HiddenLayer, invented.AllHidden])
def test_a_model_that_cannot_be_followed_is_refused_in_the_run(network: Any) -> None:
    with pytest.raises(GraphError, match="was not confirmed|Words cannot be followed"):
        edited(network, [SWAP])


def test_word_maps_and_local_blend() -> None:
    """The record holds where words look; outside the mask the edit is the source, bit for bit."""
    family = streams.QWEN_IMAGE
    graph, clip = Graph(), clip_of(family)
    edit = edit_of(clip, SWAP)
    blends = pack("p2p_core.local_blend")
    source, target = clip.prompt(SOURCE), clip.prompt(EQUAL)
    region = blends.WordRegion(source.words[2].columns, target.words[2].columns)
    blend = blends.LocalBlend(region, blends.WordRegion((), ()), 0.5, 0.0)
    edit = replace(edit, prompt_edit=replace(edit.prompt_edit, blend=blend))
    control = graph.add(
        "P2PAttentionController", model=graph.value(model_of(family)), mode="hybrid",
        latent=graph.value({"samples": latent_of(family, 1)}), edit=graph.value(edit),
    )  # fmt: skip
    samples = sampled(graph, family, PLAIN, control, control[1], control[2])
    latent, record = run(graph, samples, control[3])
    made = latent["samples"]
    [kept] = record.runs
    mask = kept.masks[STEPS - 1][0]
    assert 0 < mask.float().mean() < 1
    outside = ~mask
    assert torch.equal(made[1, :, 0][:, outside], made[0, :, 0][:, outside])
    assert not torch.equal(made[1, :, 0][:, mask], made[0, :, 0][:, mask])
    maps = record.word_maps(kept, [source.words[2].columns, target.words[2].columns],
                            pack("p2p_core.schedule").WHOLE_RUN)  # fmt: skip
    assert set(maps) == {0, 1} and all(bool((m > 0).all()) for m in maps.values())


def test_scaled_words_beside_an_edit_that_looks_at_the_source() -> None:
    """A prompt of its own length, evaluated by itself, that only scales words needs no source."""
    family = streams.QWEN_IMAGE
    elephant = clip_of(family).prompt(LONGER).words[2].columns
    scaled = edit_of(clip_of(family), Case(LONGER, "qk", cross=1.0, self_=0.0))
    scaled = replace(scaled, prompt_edit=scaled.prompt_edit.reweighted(elephant, 4.0))
    looks = edit_of(clip_of(family), Case(EQUAL, "qk", self_=1.0))

    def made(*edits: Any) -> Tensor:
        graph = Graph()
        names = ["edit", *(f"edit_{number}" for number in range(2, 9))]
        links = dict(zip(names, map(graph.value, edits), strict=False))
        control = graph.add(
            "P2PAttentionController", model=graph.value(model_of(family)), mode="qk",
            latent=graph.value({"samples": latent_of(family, 1)}), record_maps=False, **links,
        )  # fmt: skip
        link = sampled(graph, family, PLAIN, control, control[1], control[2])
        return run(graph, link)["samples"]

    alone, both = made(scaled), made(looks, scaled)
    assert distance(both[2], alone[1]) < 1e-5
    assert distance(alone[1], plain(family, LONGER)[0]) > 1e-4
