"""Qwen-Image-Edit: prompts in which pictures stand as hundreds of columns before the words."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Any

import pytest
import torch
from families import streams
from families.edits import SEED, STEPS, model_of, places_of
from families.watching import pack
from host_run import Graph, Link, run
from joint_oracle import Plan, oracle
from pictured_clip import pictured
from scenes import distance
from text_encoders import make_encoder
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host", "models")

FAMILY = streams.QWEN_IMAGE
SOURCE, SWAPPED = "a red cat on a bench", "a red dog on a bench"
LONGER, ADDED = "a red lasagne on a bench", "a red cat on a green bench"
CROSS, SELF = 0.7, 0.4
SIZES = ((8, 12), (20, 10))  # of the reference latents


@dataclass(frozen=True)
class Kind:
    """How pictures come in: the host's node, and its names for them."""

    node: str
    names: tuple[str, ...]


KINDS = {
    "one picture": Kind("TextEncodeQwenImageEdit", ("image",)),
    "Plus, one": Kind("TextEncodeQwenImageEditPlus", ("image1",)),
    "Plus, two": Kind("TextEncodeQwenImageEditPlus", ("image1", "image2")),
}


@cache
def text_encoder() -> Any:
    return make_encoder("Qwen-Image", qwen25_7b=3584)


def pictures(kind: Kind) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    sizes = ((64, 96), (80, 64))
    return {
        name: torch.rand(1, *size, 3, generator=generator)
        for name, size in zip(kind.names, sizes, strict=False)
    }


class Place:
    """A graph with the model, its text encoder, a latent and the kind's pictures."""

    def __init__(self, kind: Kind) -> None:
        self.graph, self.kind = Graph(), kind
        self.clip = self.graph.value(text_encoder())
        self.model = self.graph.value(model_of(FAMILY))
        self.latent = self.graph.value({"samples": FAMILY.latent(8, 12)})

    def text(self, prompt: str) -> Link:
        images = {name: self.graph.value(p) for name, p in pictures(self.kind).items()}
        made = self.graph.add(self.kind.node, clip=self.clip, prompt=prompt, **images)
        return self.with_references(made)

    def with_references(self, positive: Link) -> Link:
        generator = torch.Generator().manual_seed(11)
        for size in SIZES[: len(self.kind.names)]:
            latent = self.graph.value(
                {"samples": torch.randn(1, 16, 1, *size, generator=generator)}
            )
            positive = self.graph.add("ReferenceLatent", conditioning=positive, latent=latent)
        return positive

    def sampled(self, model: Link, positive: Link, latent: Link) -> Tensor:
        negative = self.graph.add("CLIPTextEncode", clip=self.clip, text="blurry")
        samples = self.graph.add(
            "KSampler", model=model, positive=positive, negative=negative, seed=SEED,
            latent_image=latent, steps=STEPS, cfg=1.0, sampler_name="euler", scheduler="simple",
            denoise=1.0,
        )  # fmt: skip
        return run(self.graph, samples)["samples"]

    def plain(self, prompt: str) -> Tensor:
        return self.sampled(self.model, self.text(prompt), self.latent)

    def edited(self, node: str, target: str) -> Tensor:
        clip = pictured(text_encoder(), self.kind.node, **pictures(self.kind))
        edit = self.graph.add(
            node, clip=self.graph.value(clip), source_prompt=SOURCE, target_prompt=target,
            cross_replace_steps=CROSS, self_replace_steps=SELF,
        )  # fmt: skip
        control = self.graph.add(
            "P2PAttentionController", model=self.model, latent=self.latent, edit=edit,
            mode="hybrid",
        )  # fmt: skip
        return self.sampled(control, self.with_references(control[1]), control[2])


def columns(conds: list[list]) -> int:
    return conds[0][0].shape[1]


def words(text: str, length: int) -> list[list[int]]:
    """Columns of every word, from the encoding's length: the template has 5 tokens behind."""
    tokenizer = text_encoder().tokenizer.qwen25_7b.tokenizer
    counts = [len(tokenizer(f" {word}")["input_ids"]) for word in text.split()]
    first = length - 5 - sum(counts)
    starts = [first + sum(counts[:i]) for i in range(len(counts))]
    return [list(range(s, s + count)) for s, count in zip(starts, counts, strict=True)]


def mapping(node: str, target: str, lengths: list[int]) -> Tensor:
    """S, (T_s, T_t): pictures, words and template column by column."""
    made = torch.zeros(*lengths)
    texts = (SOURCE, target)
    ours, theirs = (words(text, n) for text, n in zip(texts, lengths, strict=True))
    before = range(ours[0][0])
    assert theirs[0][0] == len(before) > 100
    made[before, before] = 1
    made[range(lengths[0] - 5, lengths[0]), range(lengths[1] - 5, lengths[1])] = 1
    pairs = SequenceMatcher(None, *(text.split() for text in texts), autojunk=False).get_opcodes()
    for tag, a, b, c, d in pairs:
        if tag == "equal" or (tag == "replace" and node == "P2PWordSwap"):
            for old, new in zip(ours[a:b], theirs[c:d], strict=True):
                for column in old:
                    made[column, new] = 1 / len(new)
    return made


def expected(kind: Kind, node: str, target: str) -> Tensor:
    place = Place(kind)
    conds = [run(place.graph, place.text(text)) for text in (SOURCE, target)]
    lengths = [columns(cond) for cond in conds]
    made = mapping(node, target, lengths)
    own = (made.sum(0) > 0).float()

    def plan(step: int, prompt: int) -> Plan | None:
        if prompt == 0:
            return None
        alpha, beta = (float(step / STEPS < end) for end in (CROSS, SELF))
        return Plan(mapping=made * alpha, weight=1 - alpha * own, beta=beta)

    beside = sum(h * w // 4 for h, w in SIZES[: len(kind.names)])
    latent = FAMILY.latent(8, 12, batch=2)
    places = places_of(FAMILY, lengths, latent, beside)
    return oracle(model_of(FAMILY), conds, places, plan, latent, STEPS, SEED)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_words_stand_behind_the_pictures(kind: Kind) -> None:
    """A causal encoder: the first column that moves is the changed word's."""
    clip = pictured(text_encoder(), kind.node, **pictures(kind))
    texts = pack("nodes.host.families.texts")
    cond, other = (texts.encode(clip, text)[0][0] for text in (SOURCE, LONGER))
    source, made = (texts.read_prompt(clip, text) for text in (SOURCE, LONGER))
    assert (source.length, made.length) == (cond.shape[1], other.shape[1])
    shared = min(source.length, made.length)
    moved = (cond[0, :shared] - other[0, :shared]).norm(dim=-1) > 1e-3
    assert made.words[2].columns[0] == int(moved.nonzero()[0])
    assert [list(word.columns) for word in made.words] == words(LONGER, made.length)
    found = texts.find_columns(clip, [source, made], "lasagne")
    assert found == [(), made.words[2].columns]


EDITS = [
    ("one picture", "P2PWordSwap", LONGER),
    ("Plus, one", "P2PWordSwap", SWAPPED),
    ("Plus, two", "P2PWordSwap", LONGER),
    ("Plus, two", "P2PRefine", ADDED),
]


@pytest.mark.parametrize(("name", "node", "target"), EDITS)
def test_edits_equal_the_written_out_maps(name: str, node: str, target: str) -> None:
    """The source is the run of the host's own node. Many columns leave few to the words."""
    kind = KINDS[name]
    new, wanted = Place(kind).edited(node, target), expected(kind, node, target)
    source, untied = (Place(kind).plain(text) for text in (SOURCE, target))
    assert distance(wanted[:1], source) < 1e-6 > distance(new[:1], source)
    assert distance(new, wanted) < 1e-6
    assert distance(wanted[1:], untied) > 1e-4 < distance(wanted[1:], source)
