"""A node that is switched off, bypassed or muted: the plain picture, or one clear sentence.

The page leaves a bypassed or muted node out of the graph, and with it every wire that it cannot
pass on; so these are graphs that lack an input.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import execution
import pytest
import torch
from host_run import Graph, Link, run
from scenes import SOURCE, Edit, Scene, Settings, distance, plain, scene

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=4, width=64, height=64)
SWAP = Edit("swap", "a photo of a blue dog on a bench")


def errors(graph: Graph, link: Link) -> list[dict[str, Any]]:
    """What the validation says of a graph with this node."""
    prompt = dict(graph.prompt)
    if graph.prompt[link.node]["class_type"] != "P2PSaveInversion":  # an output by itself
        value = {"value": [link.node, link.output], "key": "k"}
        prompt["keep"] = {"class_type": "TestKeep", "inputs": value}
    _, _, _, found = asyncio.run(execution.validate_prompt("bypassed", prompt, None))
    return [error for node in found.values() for error in node["errors"]]


def edit_node(s: Scene, **inputs: Any) -> Link:
    texts = {"source_prompt": SOURCE, "target_prompt": SWAP.target}
    return s.graph.add(
        "P2PEdit", model=s.model, clip=s.clip, **{"latent": s.latent, **texts, **inputs}
    )


def test_no_edit_but_a_positive_is_the_plain_picture() -> None:
    s = scene(SHORT)
    positive = s.text(SOURCE)
    control = s.graph.add(
        "P2PAttentionController", model=s.model, latent=s.latent, positive=positive
    )
    samples = run(s.graph, s.sample(control, control[1], control[2]))["samples"]
    assert torch.equal(samples, plain(SOURCE, SHORT))


def test_a_bypassed_first_edit_leaves_the_second() -> None:
    s = scene(SHORT)
    edit = SWAP.build(s.graph, s.clip)
    control = s.graph.add("P2PAttentionController", model=s.model, latent=s.latent, edit_2=edit)
    samples = run(s.graph, s.sample(control, control[1], control[2]))["samples"]
    assert len(samples) == 2 and distance(samples[1], samples[0]) > 1e-2


@pytest.mark.parametrize("one_node", [True, False])
def test_switched_off_is_the_plain_picture(one_node: bool) -> None:
    s = scene(SHORT)
    control = edit_node(s, enabled=False) if one_node else s.control(SWAP, SWAP, enabled=False)
    samples = run(s.graph, s.sample(control, control[1], control[2]))["samples"]
    expected = plain(SOURCE, SHORT)
    assert samples.shape == expected.shape and distance(samples, expected) <= 1e-5


INVERT = {"steps": 2, "scheduler": "normal"}
NULL_TEXT = {"cfg": 2.0, "inner_steps": 1, "learning_rate": 0.01, "early_stop": 1e-5}
LACKING: dict[str, tuple[Callable[[Scene], Link], str]] = {
    "controller": (
        lambda s: s.graph.add("P2PAttentionController", model=s.model, latent=s.latent),
        "P2P Attention Controller has no edit: .*bypassed or muted.*wire a CLIPTextEncode",
    ),
    "blend": (
        lambda s: s.graph.add("P2PLocalBlendMask", source_words="cat"),
        "P2P Local Blend Mask has no edit.*or bypass this node too",
    ),
    "maps": (
        lambda s: s.graph.add("P2PAttentionMaps", samples=s.latent, words="cat"),
        "P2P Attention Maps has no record.*P2P Plain Prompt",
    ),
    "compare": (
        lambda s: s.graph.add("P2PCompare", samples=s.latent),
        "P2P Compare has no record.*PreviewImage",
    ),
    "scores": (
        lambda s: s.graph.add("P2PEditScores", samples=s.latent),
        "P2P Edit Scores has no record.*that made the pictures",
    ),
    "null text": (
        lambda s: s.graph.add(
            "P2PNullTextOptimize", model=s.model, positive=s.negative, negative=s.negative,
            **NULL_TEXT,
        ),
        "P2P Null-Text Optimize has no inversion",
    ),
    "save": (
        lambda s: s.graph.add("P2PSaveInversion", name="x"),
        "P2P Save Inversion has no inversion",
    ),
    "invert": (
        lambda s: s.graph.add(
            "P2PDDIMInvert", model=s.model, latent=s.latent, clip=s.clip, **INVERT
        ),
        "P2P DDIM Invert has no positive.*or wire clip",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LACKING)
def test_what_is_lacking_is_said_once_before_anything_runs(name: str) -> None:
    s = scene(SHORT)
    build, message = LACKING[name]
    [error] = errors(s.graph, build(s))
    assert re.search(message, error["details"])


def test_a_wire_of_another_type_is_still_refused() -> None:
    s = scene(SHORT)
    [error] = errors(s.graph, s.control(SWAP, extras_from=s.latent))
    assert error["details"] == "extras_from takes CONDITIONING, but the wire to it brings LATENT."


def test_an_empty_prompt_is_told_once() -> None:
    s = scene(SHORT)
    [error] = errors(s.graph, edit_node(s, source_prompt=" "))
    assert error["details"].startswith("source_prompt is empty.")
