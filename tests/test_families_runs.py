"""How transformers are run: guiders, samplers, shifts, guidance, several pictures at once."""

from __future__ import annotations

from typing import Any

import newer_host
import pytest
from families import refiners, streams
from families.edits import (
    CASES,
    LONGER,
    SOURCE,
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
)
from families.tiny import Family
from host_run import Graph, Link, run
from scenes import distance

import nodes

pytestmark = pytest.mark.usefixtures("host", "models")
UNEQUAL = CASES[3]


def test_two_seeds_and_two_edits_with_guidance() -> None:
    """Every picture equals that of its own run; the negative is none of ours."""
    cases = [SWAP, Case(LONGER, "hybrid")]
    both = edited(streams.QWEN_IMAGE, cases, How(seeds=2, cfg=3.0))
    assert len(both) == 6
    for number, case in enumerate(cases, start=1):
        alone = edited(streams.QWEN_IMAGE, [case], How(seeds=2, cfg=3.0))
        for seed in range(2):
            assert distance(both[3 * seed + number], alone[2 * seed + 1]) < 1e-5
            assert distance(both[3 * seed], alone[2 * seed]) < 1e-5
    source = plain(streams.QWEN_IMAGE, SOURCE, How(cfg=3.0))
    assert distance(both[:1], source) < 1e-5


@pytest.mark.parametrize("guider", ["BasicGuider", "CFGGuider", "DualModelGuider"])
def test_guiders(guider: str) -> None:
    """At a real cfg too, beside a negative of the source's length and of another."""
    if guider not in nodes.NODE_CLASS_MAPPINGS:
        newer_host.skip(f"node {guider}")
    cfg = 1.0 if guider == "BasicGuider" else 3.0
    check_exact(streams.QWEN_IMAGE, SWAP, How(guider=guider, cfg=cfg))
    check_exact(streams.KLEIN, CASES[0], How(guider=guider, cfg=cfg))


@pytest.mark.parametrize("negative", ["blurry", "a red cat on a blur"])
def test_unequal_prompts_beside_a_negative(negative: str) -> None:
    check_exact(streams.QWEN_IMAGE, UNEQUAL, How(cfg=3.0, negative=negative))


def guidance(graph: Graph, positive: Link) -> Link:
    return graph.add("FluxGuidance", conditioning=positive, guidance=2.0)


SHIFTS: dict[str, tuple[Family, dict[str, Any]]] = {
    "ModelSamplingAuraFlow": (refiners.Z_IMAGE, {"shift": 3.0}),
    "ModelSamplingSD3": (streams.SD3, {"shift": 3.0}),
    "ModelSamplingFlux": (
        streams.FLUX_DEV, {"max_shift": 1.15, "base_shift": 0.5, "width": 512, "height": 512},
    ),
}  # fmt: skip


@pytest.mark.parametrize("node", SHIFTS)
def test_shifts_guidance_and_a_multistep_sampler(node: str) -> None:
    family, settings = SHIFTS[node]
    graph = Graph()
    model = run(graph, graph.add(node, model=graph.value(model_of(family)), **settings))
    cond = guidance if family is streams.FLUX_DEV else How.cond
    how = How(steps=4, model=model, cond=cond, sampler="res_multistep", guider="BasicGuider")
    check_exact(family, SWAP, how)
    assert distance(plain(family, SOURCE, how), plain(family, SOURCE, How(steps=4))) > 1e-3


@pytest.mark.parametrize("sampler", ["er_sde", "lcm", "euler_ancestral"])
def test_stochastic_samplers_give_all_rows_the_same_noise(sampler: str) -> None:
    """An edit that changes no word gives the source; another does not."""
    how = How(steps=4, sampler=sampler)
    source, same = edited(streams.QWEN_IMAGE, [Case(SOURCE, "hybrid")], how)
    assert distance(same, source) < 1e-5
    for case in (SWAP, UNEQUAL):
        again, other = edited(streams.QWEN_IMAGE, [case], how)
        assert distance(again, source) < 1e-5
        assert distance(other, source) > 1e-3


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_the_positive_zeroed_out_is_an_ordinary_negative(cfg: float) -> None:
    """As many templates wire it, also behind the controller."""
    made, wanted = [], []
    for zero_out_ours in (True, False):
        graph = Graph()
        latent = graph.value({"samples": latent_of(streams.QWEN_IMAGE, 1)})
        control = controlled(graph, streams.QWEN_IMAGE, [SWAP], How(), latent)
        text = graph.value(encoded(streams.QWEN_IMAGE, SOURCE))
        zeroed = graph.add(
            "ConditioningZeroOut", conditioning=control[1] if zero_out_ours else text
        )
        samples = graph.add(
            "KSampler", model=control, positive=control[1], negative=zeroed,
            latent_image=control[2], seed=7, steps=2, cfg=cfg, sampler_name="euler",
            scheduler="simple", denoise=1.0,
        )  # fmt: skip
        (made if zero_out_ours else wanted).append(run(graph, samples)["samples"])
    assert distance(made[0], wanted[0]) < 1e-6
