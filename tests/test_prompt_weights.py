"""P2P Prompt Weights on a UNet: against maps written out, beside others, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny_checkpoints
import torch
import weights_oracle
from host_run import GraphError, Link, run
from scenes import SOURCE, Edit, Scene, Settings, distance, plain, scene
from tiny_model import shared_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=4, width=64, height=96)
CLEAN = "a photo of a red cat on a bench, blurry"
WEIGHTED = "a photo of a (red:1.7) cat on a bench, (blurry:-1)"
WEIGHTS = {5: 1.7, 11: -1.0}  # columns of "red" and "blurry"
WORDS = range(1, 12)


def weigh(s: Scene, text: str, model: Link | None = None, **inputs: Any) -> Link:
    return s.graph.add("P2PPromptWeights", model=model or s.model, clip=s.clip, text=text, **inputs)


def sampled(text: str, settings: Settings = SHORT, model: Any = None, **inputs: Any) -> Tensor:
    s = scene(settings, model=model)
    node = weigh(s, text, **inputs)
    return run(s.graph, s.sample(node, node[1], s.latent))["samples"]


def oracle(settings: Settings = SHORT, **options: Any) -> Tensor:
    model = weights_oracle.unet(shared_unet(), WEIGHTS, WORDS, **options)
    return plain(CLEAN, settings, model=model)


@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("acts_on", ["values", "scores"])
def test_against_maps_written_out(acts_on: str, cfg: float) -> None:
    settings = SHORT.but(cfg=cfg, batch=2)
    made = sampled(WEIGHTED, settings, acts_on=acts_on)
    assert distance(made, oracle(settings, scores=acts_on == "scores")) <= 1e-4
    assert distance(made, plain(CLEAN, settings)) > 1e-2


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_other_stable_diffusions(name: str) -> None:
    """SDXL's two encoders share their columns."""
    model, clip = tiny_checkpoints.shared(name)
    parts = {"clip": clip, "settings": SHORT.but(steps=2)}
    s = scene(model=model, **parts)
    node = weigh(s, WEIGHTED)
    made = run(s.graph, s.sample(node, node[1], s.latent))["samples"]
    expected, floor = (
        plain(CLEAN, model=weights_oracle.unet(model, weights, WORDS), **parts)
        for weights in (WEIGHTS, {})
    )
    clean = plain(CLEAN, model=model, **parts)
    assert distance(made, expected) <= max(1e-4, 10 * distance(clean, floor))
    assert distance(made, clean) > 1e-2


def in_first_half(extra: dict) -> bool:
    sigmas = extra["sample_sigmas"]
    return float(extra["sigmas"][0]) >= float(sigmas[1]) * (1 - 1e-5)


def in_some_blocks(extra: dict) -> bool:
    return extra["block"] in [("input", 1), ("middle", 0)]


@pytest.mark.parametrize(
    ("inputs", "active"),
    [({"end": 0.5}, in_first_half), ({"blocks": "0, 3-3"}, in_some_blocks)],
)
def test_windows_and_blocks(inputs: dict, active: Callable[[dict], bool]) -> None:
    made = sampled(WEIGHTED, **inputs)
    assert distance(made, oracle(active=active)) <= 1e-4
    assert distance(made, oracle()) > 1e-3


def test_strength() -> None:
    assert torch.equal(sampled(WEIGHTED, strength=0.0), plain(CLEAN, SHORT))
    doubled = sampled("a photo of a (red:2.4) cat on a bench, (blurry:-3)")
    assert distance(sampled(WEIGHTED, strength=2.0), doubled) <= 1e-6


@pytest.mark.parametrize("text", [CLEAN, "a (photo:1.0) of a red cat on a bench, blurry"])
def test_weight_one_is_no_node_at_all(text: str) -> None:
    assert torch.equal(sampled(text), plain(CLEAN, SHORT))


def test_the_encoding_is_the_plain_prompts() -> None:
    s = scene(SHORT)
    [[made, _]], [[expected, _]] = run(s.graph, weigh(s, WEIGHTED)[1], s.text(CLEAN))
    assert torch.equal(made, expected)


def test_brackets_that_are_text() -> None:
    s = scene(SHORT)
    node = weigh(s, r"a \(red\) cat (on a \(big\) bench:2)")
    [[made, _]], [[expected, _]] = run(
        s.graph, node[1], s.text(r"a \(red\) cat on a \(big\) bench")
    )
    assert torch.equal(made, expected)


def test_prompts_of_several_chunks() -> None:
    """The 77 columns of the negative are repeated beside the 154 of the prompt, and split."""
    long = "tree " * 80 + "red"
    made = sampled("tree " * 80 + "(red:3)", SHORT)
    columns = [*range(1, 76), *range(78, 84)]
    model = weights_oracle.unet(shared_unet(), {83: 3.0}, columns, columns=154)
    assert distance(made, plain(long, SHORT, model=model)) <= 1e-4
    assert distance(made, plain(long, SHORT)) > 1e-4


def test_a_short_prompt_beside_a_long_negative() -> None:
    settings = SHORT.but(negative="tree " * 80)
    assert distance(sampled(WEIGHTED, settings), oracle(settings)) <= 1e-4


def test_the_model_is_left_as_it_was() -> None:
    before = plain(CLEAN, SHORT)
    sampled(WEIGHTED)
    assert torch.equal(plain(CLEAN, SHORT), before)


def test_weights_in_the_negative_too() -> None:
    """Two nodes in a row: each finds its own conditioning."""
    s = scene(SHORT)
    positive = weigh(s, WEIGHTED)
    negative = weigh(s, "(dark:2) photo", positive)
    both = run(s.graph, s.sample(negative, positive[1], s.latent, negative=negative[1]))["samples"]
    only = weigh(s, WEIGHTED)
    dark = s.text("dark photo")
    one = run(s.graph, s.sample(only, only[1], s.latent, negative=dark))["samples"]
    assert distance(both, one) > 1e-3
    alone = weigh(s, "(dark:2) photo", s.model)
    weighted = s.sample(alone, dark, s.latent, negative=alone[1])
    weighted, clean = run(s.graph, weighted, s.sample(s.model, dark, s.latent, negative=dark))
    assert distance(weighted["samples"], clean["samples"]) > 1e-3


def test_zeroed_out_as_negative() -> None:
    """The usual negative of models at cfg 1 keeps the mark, but not the words."""
    s = scene(SHORT)
    node = weigh(s, WEIGHTED)
    zero = s.graph.add("ConditioningZeroOut", conditioning=node[1])
    made = s.sample(node, node[1], s.latent, negative=zero)
    model = s.graph.value(weights_oracle.unet(shared_unet(), WEIGHTS, WORDS))
    clean = s.text(CLEAN)
    empty = s.graph.add("ConditioningZeroOut", conditioning=clean)
    made, expected = run(s.graph, made, s.sample(model, clean, s.latent, negative=empty))
    assert distance(made["samples"], expected["samples"]) <= 1e-4


def test_beside_an_edit() -> None:
    """A weighted negative acts on source and edit, in either order of the nodes."""
    s, edit = scene(SHORT), Edit("swap", "a photo of a blue dog on a bench")
    first = weigh(s, "(dark:2) photo")
    inner = s.control(edit, model=first)
    made = s.sample(inner, inner[1], inner[2], negative=first[1])
    control = s.control(edit)
    last = weigh(s, "(dark:2) photo", control)
    turned = s.sample(last, control[1], control[2], negative=last[1])
    alone = s.sample(first, s.text(SOURCE), s.latent, negative=first[1])
    made, turned, alone = (one["samples"] for one in run(s.graph, made, turned, alone))
    assert distance(made, turned) <= 1e-6
    assert distance(made[0], alone[0]) <= 1e-4


def test_combined_with_a_region() -> None:
    """Weights act in the prompt's own area, and not in the prompt beside it."""
    s = scene(SHORT)
    node = weigh(s, WEIGHTED)

    def regional(positive: Link) -> Link:
        area = s.graph.add(
            "ConditioningSetArea",
            conditioning=positive,
            width=64,
            height=64,
            x=0,
            y=0,
            strength=1.0,
        )
        return s.graph.add(
            "ConditioningCombine", conditioning_1=area, conditioning_2=s.text("a dog")
        )

    made = run(s.graph, s.sample(node, regional(node[1]), s.latent))["samples"]

    def in_area(extra: dict) -> bool:
        return list(extra["original_shape"][-2:]) == [8, 8]

    model = weights_oracle.unet(shared_unet(), WEIGHTS, WORDS, active=in_area)
    clean = regional(s.text(CLEAN))
    expected = run(s.graph, s.sample(s.graph.value(model), clean, s.latent))["samples"]
    assert distance(made, expected) <= 1e-4
    assert distance(made, run(s.graph, s.sample(s.model, clean, s.latent))["samples"]) > 1e-3


def test_what_a_concatenated_prompt_appends_stays() -> None:
    s = scene(SHORT)
    node = weigh(s, WEIGHTED)
    joined = s.graph.add(
        "ConditioningConcat", conditioning_to=node[1], conditioning_from=s.text("a dog")
    )
    made = run(s.graph, s.sample(node, joined, s.latent))["samples"]
    model = s.graph.value(weights_oracle.unet(shared_unet(), WEIGHTS, WORDS, columns=154))
    clean = s.graph.add(
        "ConditioningConcat", conditioning_to=s.text(CLEAN), conditioning_from=s.text("a dog")
    )
    assert distance(made, run(s.graph, s.sample(model, clean, s.latent))["samples"]) <= 1e-4


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"text": "a cat ( :2)"}, "is no word"),
        ({"text": "( :2) a cat"}, "is no word"),
        ({"text": "a cat (red:nan)"}, "finite"),
        ({"text": "a (re:2)(d:3) cat"}, "share a token"),
        ({"blocks": "0-90"}, "blocks names block 90"),
        ({"blocks": "first"}, "no block or range"),
        ({"start": 0.6, "end": 0.4}, "start is not after its end"),
    ],
)
def test_what_is_refused(inputs: dict, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        sampled(**{"text": WEIGHTED, **inputs})


def test_the_positive_alone_is_refused() -> None:
    s = scene(SHORT)
    with pytest.raises(GraphError, match="no P2P Prompt Weights"):
        run(s.graph, s.sample(s.model, weigh(s, WEIGHTED)[1], s.latent))


def test_the_model_alone_is_refused() -> None:
    s = scene(SHORT)
    with pytest.raises(GraphError, match="gets no prompt from the P2P Prompt Weights"):
        run(s.graph, s.sample(weigh(s, WEIGHTED), s.text(CLEAN), s.latent))


def test_an_averaged_positive_is_refused() -> None:
    s = scene(SHORT)
    node = weigh(s, WEIGHTED)
    average = s.graph.add(
        "ConditioningAverage", conditioning_to=node[1], conditioning_from=s.text("a dog"),
        conditioning_to_strength=0.5,
    )  # fmt: skip
    with pytest.raises(GraphError, match="was changed on its way"):
        run(s.graph, s.sample(node, average, s.latent))


def test_an_attention_that_others_replace_is_wrapped() -> None:
    """What stands on a layer keeps its place, and gets weighted values."""
    model = shared_unet().clone()
    model.set_model_attn2_replace(double, "middle", 0)
    made = sampled(WEIGHTED, model=model)
    expected = weights_oracle.unet(shared_unet(), WEIGHTS, WORDS)
    assert distance(made, plain(CLEAN, SHORT, model=expected)) > 1e-4
    assert distance(made, sampled(WEIGHTED)) > 1e-4


def double(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
    from comfy.ldm.modules.attention import optimized_attention

    return 2 * optimized_attention(q, k, v, extra["n_heads"])


def test_a_prompt_that_is_never_evaluated() -> None:
    s = scene(SHORT)
    node = weigh(s, WEIGHTED)
    late = s.graph.add("ConditioningSetTimestepRange", conditioning=node[1], start=0.0, end=0.0)
    both = s.graph.add("ConditioningCombine", conditioning_1=late, conditioning_2=s.text("a dog"))
    with pytest.raises(GraphError, match="never evaluated"):
        run(s.graph, s.sample(node, both, s.latent))
