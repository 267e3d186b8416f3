"""Edits on transformers beside nodes that leave layers or whole calls out, and beside overrides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import newer_host
import pytest
import torch
from families import streams
from families.edits import (
    CASES,
    SOURCE,
    STEPS,
    SWAP,
    Case,
    How,
    check_exact,
    controlled,
    edited,
    encoded,
    latent_of,
    model_of,
    plain,
    sampled,
)
from families.tiny import Family
from host_run import Graph, GraphError, Link, run
from scenes import distance
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host", "models")
UNEQUAL = CASES[3]


def test_an_override_of_another_pack_stays_in_the_run() -> None:
    """Ours goes around it."""
    seen = []

    def foreign(func: Any, q: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(q.shape)
        return func(q, *args, **kwargs)

    model = model_of(streams.QWEN_IMAGE).clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = foreign
    made = edited(streams.QWEN_IMAGE, [SWAP], How(model=model))
    assert torch.equal(made, edited(streams.QWEN_IMAGE, [SWAP]))
    assert len(seen) > STEPS * 3


def patched(node: str, family: Family, **settings: Any) -> Any:
    graph = Graph()
    return run(graph, graph.add(node, model=graph.value(model_of(family)), **settings))


@pytest.mark.parametrize("case", [SWAP, UNEQUAL], ids=lambda case: case.target)
@pytest.mark.parametrize(
    "family", [streams.SD3, streams.SD35, streams.QWEN_IMAGE, streams.FLUX_DEV],
    ids=lambda family: family.name,
)  # fmt: skip
def test_skip_layer_guidance(family: Family, case: Case) -> None:
    """A second evaluation of the prompts without some layers, edited in those that stay."""
    model = patched(
        "SkipLayerGuidanceDiT", family, double_layers="0", single_layers="1", scale=2.0,
        start_percent=0.0, end_percent=1.0, rescaling_scale=0.0,
    )  # fmt: skip
    how = How(model=model)
    check_exact(family, case, how)
    assert distance(plain(family, SOURCE, how), plain(family, SOURCE)) > 1e-3


def test_skip_layer_guidance_that_keeps_the_contrast_of_all_pictures_together() -> None:
    model = patched(
        "SkipLayerGuidanceDiT", streams.QWEN_IMAGE, double_layers="0", single_layers="", scale=2.0,
        start_percent=0.0, end_percent=1.0, rescaling_scale=0.3,
    )  # fmt: skip
    with pytest.raises(GraphError, match="Set its rescaling_scale to 0"):
        edited(streams.QWEN_IMAGE, [SWAP], How(model=model))


def test_an_area_beside_the_picture() -> None:
    """Where nothing is painted, nothing is edited: it is said, if the host gets so far."""

    def beside(graph: Graph, positive: Link) -> Link:
        size = {"x": 96, "y": 0, "width": 64, "height": 64, "strength": 1.0}
        area = graph.add("ConditioningSetArea", conditioning=positive, **size)
        whole = graph.value(encoded(streams.KREA2, "mist"))
        return graph.add("ConditioningCombine", conditioning_1=area, conditioning_2=whole)

    how = How(cond=beside)
    assert plain(streams.KREA2, SOURCE, how).isfinite().all()
    with pytest.raises(GraphError, match="an area must lie inside the picture"):
        edited(streams.KREA2, [SWAP], how)


def test_blocks_that_are_always_left_out() -> None:
    model = model_of(streams.QWEN_IMAGE).clone()
    model.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 1)
    check_exact(streams.QWEN_IMAGE, SWAP, How(model=model))


@pytest.mark.parametrize("case", [SWAP, UNEQUAL], ids=lambda case: case.target)
@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_caches_that_skip_calls(node: str, case: Case) -> None:
    """A call that was skipped is not controlled; source and edit keep caches of their own."""
    family = streams.QWEN_IMAGE
    settings = {"start_percent": 0.3, "end_percent": 0.9, "verbose": False}
    model = patched(node, family, reuse_threshold=3.0, **settings)
    how, steps = How(steps=8, model=model), How(steps=8)
    source, edit = edited(family, [case], how)
    assert distance(source, plain(family, SOURCE, how)[0]) < 1e-5
    assert distance(source, plain(family, SOURCE, steps)[0]) > 1e-4  # it did skip
    assert distance(edit, source) > 1e-3
    assert distance(edit, plain(family, case.target, how)[0]) > 1e-4  # and went on editing


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize(
    "family", [streams.FLUX_DEV, streams.KREA2], ids=lambda family: family.name
)  # fmt: skip
def test_normalised_attention_guidance(family: Family, cfg: float) -> None:
    """It mixes what a prompt and a negative of its length attend to, in one batch."""
    model = patched("NAGuidance", family, nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)
    how = How(model=model, cfg=cfg, negative="a red cat on a blurs")
    source, target = (plain(family, prompt, how) for prompt in (SOURCE, SWAP.target))
    if distance(source, plain(family, SOURCE, replace(how, model=None))) < 1e-4:
        newer_host.skip(f"attention guidance in {family.name}")
    free = replace(SWAP, cross=0.0, self_=0.0)
    made, untied = edited(family, [SWAP], how), edited(family, [free], how)
    assert distance(made[:1], source) < 1e-5 and distance(untied[:1], source) < 1e-5
    assert distance(untied[1:], target) < 1e-5
    assert distance(made[1:], target) > 1e-3 < distance(made[1:], source)


def test_maps_are_of_the_picture_s_own_evaluation() -> None:
    """Not of the second one that skip layer guidance makes of it."""
    found = []
    for scale in (2.0, 0.0):
        model = patched(
            "SkipLayerGuidanceDiT", streams.QWEN_IMAGE, double_layers="0", single_layers="",
            scale=scale, start_percent=0.0, end_percent=1.0, rescaling_scale=0.0,
        )  # fmt: skip
        graph, how = Graph(), How(steps=1, model=model)
        latent = graph.value({"samples": latent_of(streams.QWEN_IMAGE, 1)})
        control = controlled(graph, streams.QWEN_IMAGE, [SWAP], how, latent)
        samples = sampled(graph, streams.QWEN_IMAGE, how, control, control[1], control[2])
        _, record = run(graph, samples, control[3])
        found.append(record.runs[-1].maps.words([0, 1], [3, 4, 5]))
    assert torch.equal(*found)
