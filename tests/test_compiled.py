"""A compiled network stays compiled under an edit: a graph for each kind of step, not for each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
import torch._dynamo
from comfy_api.torch_helpers import set_torch_compile_wrapper
from families import refiners, streams
from families.edits import (
    EQUAL,
    Case,
    How,
    controlled,
    latent_of,
    model_of,
    sampled,
)
from families.tiny import Family
from host_run import Graph, Host, Link, run
from scenes import Edit, Scene, Settings, distance, scene
from tiny_model import shared_unet
from torch._dynamo.utils import counters

pytestmark = pytest.mark.usefixtures("host", "models", "attention_of_gpus")
SIX_STEPS = Settings(steps=6, width=64, height=64)
HALF = Edit("swap", "a photo of a blue dog on a bench", cross=0.5, self_=0.5)
OTHER = Edit("swap", "a photo of a green cat on a bench", cross=0.5, self_=0.5)


@pytest.fixture
def attention_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's choice for a CPU breaks every graph itself."""
    for name, module in list(sys.modules.items()):
        for function in ("optimized_attention", "optimized_attention_masked"):
            if name.startswith("comfy.ldm.") and hasattr(module, function):
                monkeypatch.setattr(module, function, host_attention.attention_pytorch)


@contextmanager
def compiled(model: Any) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
    """A compiled clone, and for every call of it the rows and the graphs that there are by then."""
    found: list[tuple[int, int]] = []

    def count(x: Any, *args: Any, **kwargs: Any) -> Any:
        out = type(base)._apply_model(base, x, *args, **kwargs)
        found.append((len(x), counters["stats"]["unique_graphs"]))
        return out

    model, base = model.clone(), model.model
    set_torch_compile_wrapper(model=model, backend="eager")
    torch._dynamo.reset()
    counters.clear()
    base._apply_model = count
    try:
        yield model, found
    finally:
        del base._apply_model
        torch._dynamo.reset()


def edited(s: Scene, edit: Link | Edit, **inputs: Any) -> Link:
    edit = edit.build(s.graph, s.clip) if isinstance(edit, Edit) else edit
    control = s.control(**{"edit": edit, "record_maps": False, **inputs})
    return s.sample(control, control[1], control[2])


def test_graphs_are_counted_by_windows() -> None:
    with compiled(shared_unet()) as (model, calls):
        s = scene(SIX_STEPS, model=model)
        made = run(s.graph, edited(s, HALF))["samples"]
    s = scene(SIX_STEPS)
    assert calls == [(4, 1)] * 3 + [(4, 2)] * 3
    assert distance(made, run(s.graph, edited(s, HALF))["samples"]) < 1e-5


def test_maps_and_blends() -> None:
    """What is collected at a step does not make the step another one."""

    def made(model: Any) -> tuple:
        s = scene(SIX_STEPS, model=model)
        words = {"source_words": "cat", "target_words": "dog"}
        blended = s.graph.add("P2PLocalBlendMask", edit=HALF.build(s.graph, s.clip), **words)
        control = s.control(edit=blended)
        samples = s.sample(control, control[1], control[2])
        maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="dog")
        return run(s.graph, samples, maps[1])

    with compiled(shared_unet()) as (model, calls):
        found, mask = made(model)
    expected, expected_mask = made(shared_unet())
    assert calls == [(4, 1)] * 3 + [(4, 2)] * 3
    assert distance(found["samples"], expected["samples"]) < 1e-5
    assert distance(mask, expected_mask) < 1e-3


def test_a_kept_source_is_kept_and_followed() -> None:
    """With as few rows as without a compiler, and a graph more for their number."""
    whole = {"cross_replace_steps": 1.0, "self_replace_steps": 1.0}
    three, edits = SIX_STEPS.but(steps=3), [replace(e, cross=1.0, self_=1.0) for e in (HALF, OTHER)]
    with compiled(shared_unet()) as (model, calls):
        s, host = scene(three, model=model), Host()
        wired = {"model": s.model, "latent": s.latent, "keep": "full", "steps": 3}
        kept = s.graph.add("P2PKeepSource", **wired, **whole)
        for edit in edits:
            made = host.run(s.graph, edited(s, edit, kept_source=kept))["samples"]
    s = scene(three)
    assert calls == [(4, 1)] * 3 + [(2, 2)] * 3
    assert distance(made, run(s.graph, edited(s, edits[1]))["samples"]) < 1e-4


def check_two_kinds(graphs: list[int]) -> None:
    """Pieces between the attention calls in the first half of the steps, one graph in the other."""
    half = len(graphs) // 2
    assert graphs == [graphs[0]] * half + [graphs[0] + 1] * half
    assert 1 < graphs[0] <= 16


@pytest.mark.parametrize(
    ("family", "mode"),
    [(refiners.Z_IMAGE, "hybrid"), (streams.FLUX_DEV, "qk")],
    ids=["Z-Image", "Flux.1"],
)
def test_transformers(family: Family, mode: str) -> None:
    """Their attention is called as it is, between graphs that stay the same at every step."""
    case = Case(EQUAL, mode, cross=0.5, self_=0.5)

    def made(model: Any) -> Any:
        graph, how = Graph(), How(steps=6, model=model)
        latent = graph.value({"samples": latent_of(family, 1)})
        control = controlled(graph, family, [case], how, latent, record_maps=False)
        return run(graph, sampled(graph, family, how, control, control[1], control[2]))["samples"]

    with compiled(model_of(family)) as (model, calls):
        found = made(model)
    check_two_kinds([graphs for _, graphs in calls[-6:]])
    assert distance(found, made(model_of(family))) < 1e-4


def test_words_with_weights() -> None:
    from random_graphs.transformers import loaded

    family = streams.QWEN_IMAGE
    model, clip = loaded(family.name)

    def made(model: Any) -> Any:
        graph = Graph()
        weighed = graph.add(
            "P2PPromptWeights", model=graph.value(model), clip=graph.value(clip),
            text="a (red:2) cat", end=0.5,
        )  # fmt: skip
        latent = graph.value({"samples": latent_of(family, 1)})
        return run(graph, sampled(graph, family, How(steps=4), weighed, weighed[1], latent))[
            "samples"
        ]

    with compiled(model) as (own, calls):
        found = made(own)
    check_two_kinds([graphs for _, graphs in calls[-4:]])
    assert distance(found, made(model)) < 1e-4
