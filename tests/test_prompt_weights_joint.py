"""P2P Prompt Weights on transformers: against maps written out, over the whole sampled latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
import weights_oracle
from families import others, refiners, streams
from families.tiny import Family
from families.watching import pack
from host_run import Graph, GraphError, run
from scenes import distance
from text_encoders import make_encoder
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
CLEAN = "a red cat on a bench, blurry"
WEIGHTED = "a (red:1.7) cat on a bench, (blurry:-1)"
SHARED: dict[str, Any] = {
    "seed": 7, "steps": 3, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """A model and its text encoder. words: columns of all words, of "red" and of "blurry"."""

    family: Family
    encoder: str
    widths: dict[str, int]
    words: tuple[tuple[int, ...], int, tuple[int, ...]]
    text: int  # columns of the encoding
    image_first: bool = False
    patch: int = 2

    def __str__(self) -> str:
        return self.family.name


# Qwen: a red cat on a bench , blurry; T5: _ a red cat on _ a bench , blur ry
QWEN = tuple(range(8))
T5 = tuple(range(11))
CLIP = tuple(range(1, 9))
BEHIND_3 = tuple(range(3, 11))
CASES = [
    Case(streams.QWEN_IMAGE, "Qwen-Image", {"qwen25_7b": 3584}, (QWEN, 1, (7,)), 13),
    Case(refiners.Z_IMAGE, "Z-Image", {"qwen3_4b": 2560}, (BEHIND_3, 4, (10,)), 16),
    Case(streams.KREA2, "Krea 2", {"qwen3vl_4b": 80}, (QWEN, 1, (7,)), 13),
    Case(streams.FLUX_DEV, "Flux.1", {"t5xxl": 4096, "clip_l": 768}, (T5, 2, (9, 10)), 256),
    Case(streams.KLEIN, "Klein", {"qwen3_4b": 2560}, (BEHIND_3, 4, (10,)), 512, patch=1),
    Case(
        streams.SD3, "SD3", {"clip_l": 768, "clip_g": 1280},
        ((*CLIP, *(77 + i for i in T5)), (2, 79), (8, 86, 87)), 154,
    ),
    Case(
        others.JOY_IMAGE, "JoyImage", {"qwen3vl_8b": 4096}, (tuple(range(2, 10)), 3, (9,)), 15,
        image_first=True,
    ),
    Case(refiners.ANIMA, "Anima", {"qwen3_06b": 64}, (T5, 2, (9, 10)), 512),
]  # fmt: skip
QWEN_IMAGE = CASES[0]


@cache
def loaded(case: Case) -> tuple[Any, Any]:
    return case.family.load(), make_encoder(case.encoder, **case.widths)


class Place:
    """A graph with a case's model and text encoder."""

    def __init__(
        self, case: Case, cfg: float = 1.0, batch: int = 1, model: Any = None,
        negative: str = "dark",
    ) -> None:  # fmt: skip
        own, clip = loaded(case)
        self.case, self.cfg, self.graph = case, cfg, Graph()
        self.model = self.graph.value(model or own)
        self.clip = self.graph.value(clip)
        latent = case.family.latent(batch=batch)
        self.latent = self.graph.value({"samples": latent})
        self.negative = self.text(negative)

    def text(self, text: str) -> Any:
        return self.graph.add("CLIPTextEncode", clip=self.clip, text=text)

    def weigh(self, text: str, model: Any = None, **inputs: Any) -> Any:
        wired = {"model": model or self.model, "clip": self.clip, "text": text}
        return self.graph.add("P2PPromptWeights", **wired, **inputs)

    def sampled(self, model: Any, positive: Any) -> Tensor:
        made = self.graph.add(
            "KSampler", model=model, positive=positive, negative=self.negative, cfg=self.cfg,
            latent_image=self.latent, **SHARED,
        )  # fmt: skip
        return run(self.graph, made)["samples"]


def weighted(case: Case, text: str = WEIGHTED, cfg: float = 1.0, **options: Any) -> Tensor:
    given = ("batch", "model", "negative")
    inputs = {name: options.pop(name) for name in given if name in options}
    place = Place(case, cfg, **inputs)
    node = place.weigh(text, **options)
    return place.sampled(node, node[1])


def oracle(
    case: Case, cfg: float = 1.0, batch: int = 1, negative: str = "dark", **options: Any
) -> Tensor:
    place = Place(case, cfg, batch, oracle_model(case, **options), negative)
    return place.sampled(place.model, place.text(CLEAN))


def oracle_model(case: Case, **options: Any) -> Any:
    words, red, blurry = case.words
    reds = red if isinstance(red, tuple) else (red,)
    weights = {**dict.fromkeys(reds, 1.7), **dict.fromkeys(blurry, -1.0)}
    size = case.family.latent().shape[-2:]
    pictures = (size[0] // case.patch) * (size[1] // case.patch)
    return weights_oracle.joint(
        loaded(case)[0], weights, words, case.text, lambda options: pictures, case.image_first,
        **options,
    )  # fmt: skip


def plain(case: Case, cfg: float = 1.0, batch: int = 1) -> Tensor:
    place = Place(case, cfg, batch)
    return place.sampled(place.model, place.text(CLEAN))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_maps_written_out(case: Case) -> None:
    made, expected, floor = weighted(case), oracle(case), plain(case)
    assert distance(made, expected) <= 1e-4
    assert distance(made, floor) > 5e-4


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=str)
@pytest.mark.parametrize("options", [{"scores": True}, {"image_only": True}], ids=str)
def test_scores_and_image_queries(case: Case, options: dict) -> None:
    inputs = {"acts_on": "scores"} if "scores" in options else {"queries": "image"}
    made = weighted(case, **inputs)
    assert distance(made, oracle(case, **options)) <= 1e-4
    assert distance(made, oracle(case)) > 1e-4


@pytest.mark.parametrize("case", [CASES[0], CASES[1]], ids=str)
def test_with_a_negative_and_several_pictures(case: Case) -> None:
    made = weighted(case, cfg=3.0, batch=2)
    assert distance(made, oracle(case, cfg=3.0, batch=2)) <= 1e-4


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_weight_one_is_no_node_at_all(case: Case) -> None:
    assert torch.equal(weighted(case, CLEAN), plain(case))
    assert torch.equal(weighted(case, "a (red:1) cat on a bench, blurry"), plain(case))
    assert torch.equal(weighted(case, strength=0.0), plain(case))


def test_brackets_of_the_syntax_never_reach_the_encoder() -> None:
    place = Place(QWEN_IMAGE)
    node = place.weigh(r"a (red:2) cat \(here\)")
    [[made, _]], [[expected, _]] = run(place.graph, node[1], place.text("a red cat (here)"))
    assert torch.equal(made, expected)


def test_brackets_side_by_side_inside_of_another() -> None:
    """What stands between them is no word."""
    made = weighted(QWEN_IMAGE, "a ((red:1.7) (cat:1.7):0.5) on a bench, blurry")
    assert torch.equal(made, weighted(QWEN_IMAGE, "a (red:1.7) (cat:1.7) on a bench, blurry"))


def test_around_an_override_that_is_there() -> None:
    """Sage attention and the like keep the slot; theirs is called with our values."""
    calls = []

    def foreign(func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return func(*args, **kwargs)

    model = loaded(QWEN_IMAGE)[0].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = foreign
    made = weighted(QWEN_IMAGE, model=model)
    assert torch.equal(made, weighted(QWEN_IMAGE)) and calls


def test_scores_with_a_negative_and_beside_an_override_that_takes_no_mask() -> None:
    """The bias reaches our rows alone; another pack's attention gets none."""
    masks = []

    def foreign(func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        masks.extend([*args[4:5], kwargs.get("mask")])
        return func(*args, **kwargs)

    model = loaded(QWEN_IMAGE)[0].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = foreign
    run = {"cfg": 3.0, "batch": 2, "negative": "a blue dog on a chair, dark"}  # as long: one batch
    expected = oracle(QWEN_IMAGE, **run, scores=True)
    for own in (None, model):
        made = weighted(QWEN_IMAGE, **run, acts_on="scores", model=own)
        assert distance(made, expected) <= 1e-4
    assert masks and not any(mask is not None for mask in masks)


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (2, 1, 5, 7), (2, 3, 5, 7)], ids=str)
def test_a_bias_beside_a_mask(shape: tuple[int, ...]) -> None:
    """As the host reads masks of every shape, of truth values or of numbers."""
    as_bias = pack("nodes.host.weights.joint")._as_bias
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.3
    numbers = torch.zeros(shape).masked_fill(~mask, -torch.inf)
    like = numbers.reshape(*[1] * (2 - len(shape)), *shape)
    q, k, v = (torch.randn(2, 3, n, 8) for n in (5, 7, 7))
    host = pack("nodes.host.weights.unet").host_attention.attention_pytorch
    expected = host(q, k, v, 3, mask=like, skip_reshape=True)
    for given in (mask, numbers):
        made = host(q, k, v, 3, mask=as_bias(given, torch.float32), skip_reshape=True)
        assert torch.equal(made, expected)


def advanced(place: Place, model: Any, positive: Any) -> Tensor:
    """As FLUX templates sample: a guider without negative, and a model with another shift."""
    graph = place.graph
    model = graph.add("ModelSamplingAuraFlow", model=model, shift=3.1)
    made = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=7),
        guider=graph.add("BasicGuider", model=model, conditioning=positive),
        sampler=graph.add("KSamplerSelect", sampler_name="res_multistep"),
        sigmas=graph.add("BasicScheduler", model=model, scheduler="simple", steps=3, denoise=1.0),
        latent_image=place.latent,
    )
    return run(graph, made)["samples"]


def test_under_a_guider_without_negative() -> None:
    place = Place(QWEN_IMAGE)
    node = place.weigh(WEIGHTED)
    other = Place(QWEN_IMAGE, model=oracle_model(QWEN_IMAGE))
    expected = advanced(other, other.model, other.text(CLEAN))
    assert distance(advanced(place, node, node[1]), expected) <= 1e-4


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[5]], ids=str)
def test_beside_skip_layer_guidance(case: Case) -> None:
    """A second evaluation without some layers: the words are weighed in those that stay."""

    def guided(model: Any) -> Any:
        graph = Graph()
        settings = {"double_layers": "0", "single_layers": "1", "rescaling_scale": 0.0}
        percents = {"start_percent": 0.0, "end_percent": 1.0}
        node = graph.add(
            "SkipLayerGuidanceDiT", model=graph.value(model), scale=2.0, **settings, **percents
        )
        return run(graph, node)

    place = Place(case, model=guided(oracle_model(case)))
    expected = place.sampled(place.model, place.text(CLEAN))
    assert distance(weighted(case, model=guided(loaded(case)[0])), expected) <= 1e-4
    assert distance(expected, oracle(case)) > 1e-3


def test_blocks_and_windows() -> None:
    whole = weighted(QWEN_IMAGE)
    parts = [weighted(QWEN_IMAGE, blocks="0-1"), weighted(QWEN_IMAGE, end=0.5)]
    assert all(distance(part, whole) > 1e-4 for part in parts)
    assert all(distance(part, plain(QWEN_IMAGE)) > 1e-4 for part in parts)
    assert torch.equal(weighted(QWEN_IMAGE, blocks="0-2"), whole)
    assert torch.equal(weighted(QWEN_IMAGE, start=0.0, end=0.0), plain(QWEN_IMAGE))


def test_a_model_whose_attention_cannot_be_reached() -> None:
    case = replace(QWEN_IMAGE, family=others.PIXART, encoder="Chroma", widths={"t5xxl": 4096})
    with pytest.raises(GraphError, match="Words cannot be followed in this model"):
        weighted(case)


def test_blocks_that_the_model_does_not_have() -> None:
    with pytest.raises(GraphError, match="read in 3 blocks"):
        weighted(QWEN_IMAGE, blocks="3")


def test_a_text_that_the_host_pads() -> None:
    """Flux.2 fills up on the left; what is not in the text at all is refused."""
    offset = pack("nodes.host.weights.run")._offset
    own = torch.randn(5, 4)
    assert offset(own, torch.cat([torch.zeros(7, 4), own])) == 7
    assert offset(own, torch.cat([own, torch.zeros(7, 4)])) == 0
    with pytest.raises(ValueError, match="remakes the prompt's encoding"):
        offset(own, torch.cat([torch.zeros(7, 4), 2 * own]))
