"""SD3's words in two sets of columns, CLIP's and T5's, of any length: edits against the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Any

import pytest
import torch
from families import streams
from families.edits import CROSS_SHARE, SEED, SELF_SHARE, STEPS, hybrid_plan, model_of, places_of
from families.watching import pack
from host_run import Graph, Link, run
from joint_oracle import oracle
from scenes import distance
from text_encoders import make_encoder
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host", "models")

CHUNK, ROOM = 77, 75  # columns of a chunk of CLIP's, and of words in it
TREES = " a tree"  # two tokens of CLIP, three of T5
WORD = " Umweltverschmutzung"  # more tokens for CLIP than for T5, which reads German


@dataclass(frozen=True)
class Pair:
    """node: of the edit. In source and target: chunks of CLIP's columns, and columns of T5's."""

    node: str
    source: str
    target: str
    chunks: tuple[int, int]
    t5: tuple[int, int]


PAIRS = {
    "short": Pair(
        "P2PWordSwap", "a red cat on a bench", "a red lasagne on a bench", (1, 1), (77, 77)
    ),
    "T5 beyond 77, each its own": Pair(
        "P2PWordSwap", "a red cat" + TREES * 30, "a red lasagne" + TREES * 30, (1, 1), (95, 97)
    ),
    "a target of two chunks": Pair(
        "P2PRefine", "a red cat" + TREES * 34, "a red cat wearing blue glasses" + TREES * 36,
        (1, 2), (107, 116),
    ),
    "both of two chunks": Pair(
        "P2PWordSwap", "a red cat" + TREES * 50, "a red elephant" + TREES * 52, (2, 2), (155, 161)
    ),
    "two chunks beside padding of T5": Pair(
        "P2PRefine", "a red cat" + WORD * 5, "a red cat" + WORD * 12, (1, 2), (77, 77)
    ),
}  # fmt: skip


@cache
def text_encoder() -> Any:
    return make_encoder("SD3", clip_l=768, clip_g=1280)


@dataclass
class Side:
    """One set of columns of a prompt: its words, and what stands around them."""

    words: list[list[int]]
    begins: list[int]
    ends: list[int]
    padding: list[int]
    chunk: int
    first: int


def sides(text: str) -> tuple[Side, Side]:
    """CLIP's and T5's, word by word from the tokenizers themselves."""
    tokenizer = text_encoder().tokenizer
    of_clip, of_t5 = (
        [len(own.tokenizer(word)["input_ids"]) - more for word in text.split()]
        for own, more in ((tokenizer.clip_l, 2), (tokenizer.t5xxl, 1))
    )
    count = sum(of_clip)
    chunks = -(-count // ROOM)
    ends = [CHUNK * i + 1 + min(ROOM, count - ROOM * i) for i in range(chunks)]
    padding = [c for i, end in enumerate(ends) for c in range(end + 1, CHUNK * (i + 1))]
    places = [CHUNK * (i // ROOM) + 1 + i % ROOM for i in range(count)]
    begins = [CHUNK * i for i in range(chunks)]
    first = CHUNK * chunks
    clip = Side(cut(places, of_clip), begins, ends, padding, CHUNK, 0)
    end = first + sum(of_t5)
    words = cut(list(range(first, end)), of_t5)
    return clip, Side(words, [], [end], list(range(end + 1, first + CHUNK)), 10**6, first)


def cut(columns: list[int], counts: list[int]) -> list[list[int]]:
    return [columns[sum(counts[:i]) : sum(counts[: i + 1])] for i in range(len(counts))]


def length(side: Side) -> int:
    """Columns up to the end of the set."""
    return max([*side.ends, *side.padding]) + 1


def mapping(pair: Pair) -> Tensor:
    """S, (T_s, T_t): each set by itself."""
    sets = list(zip(sides(pair.source), sides(pair.target), strict=True))
    made = torch.zeros(length(sets[-1][0]), length(sets[-1][1]))

    def connect(old: list[int], new: list[int]) -> None:
        if len(old) == len(new):
            made[old, new] = 1
        elif old and new:
            made[torch.tensor(old)[:, None], new] = 1 / len(new)

    matcher = SequenceMatcher(None, pair.source.split(), pair.target.split(), autojunk=False)
    swap = pair.node == "P2PWordSwap"
    for one, other in sets:
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag == "equal" or (tag == "replace" and swap):
                for old, new in zip(one.words[a:b], other.words[c:d], strict=True):
                    connect(old, new)
        connect(one.begins, other.begins)
        connect(one.ends, other.ends)
        for place in range(length(other)):
            old, new = (
                [c for c in side.padding if (c - side.first) % side.chunk == place]
                for side in (one, other)
            )
            connect(old, new)
    return made


def expected(pair: Pair) -> Tensor:
    clip, made = text_encoder(), mapping(pair)
    with torch.inference_mode():
        texts = (pair.source, pair.target)
        conds = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]
    latent = streams.SD3.latent(8, 12, batch=2)
    places = places_of(streams.SD3, [cond[0][0].shape[1] for cond in conds], latent)
    return oracle(model_of(streams.SD3), conds, places, hybrid_plan(made), latent, STEPS, SEED)


class Place:
    """A graph with the model, its text encoder and a latent."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.clip = self.graph.value(text_encoder())
        self.model = self.graph.value(model_of(streams.SD3))
        self.latent = self.graph.value({"samples": streams.SD3.latent(8, 12)})

    def text(self, prompt: str) -> Link:
        return self.graph.add("CLIPTextEncode", clip=self.clip, text=prompt)

    def sampled(self, model: Link, positive: Link, latent: Link) -> Tensor:
        samples = self.graph.add(
            "KSampler", model=model, positive=positive, negative=self.text("blurry"), seed=SEED,
            latent_image=latent, steps=STEPS, cfg=1.0, sampler_name="euler", scheduler="simple",
            denoise=1.0,
        )  # fmt: skip
        return run(self.graph, samples)["samples"]


def edited(pair: Pair) -> Tensor:
    place = Place()
    edit = place.graph.add(
        pair.node, clip=place.clip, source_prompt=pair.source, target_prompt=pair.target,
        cross_replace_steps=CROSS_SHARE, self_replace_steps=SELF_SHARE,
    )  # fmt: skip
    control = place.graph.add(
        "P2PAttentionController", model=place.model, latent=place.latent, edit=edit, mode="hybrid"
    )
    return place.sampled(control, control[1], control[2])


def plain(prompt: str) -> Tensor:
    place = Place()
    return place.sampled(place.model, place.text(prompt), place.latent)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@torch.inference_mode()
def test_words_have_columns_in_both_sets(pair: Pair) -> None:
    clip, texts = text_encoder(), pack("nodes.host.families.texts")
    for text, *lengths in zip((pair.source, pair.target), pair.chunks, pair.t5, strict=True):
        made, (first, second) = texts.read_prompt(clip, text), sides(text)
        ends = length(first), length(second)
        assert [ends[0] // CHUNK, ends[1] - ends[0]] == lengths
        assert made.length == ends[1] == texts.encode(clip, text)[0][0].shape[1]
        assert [list(word.columns) for word in made.words] == [
            one + other for one, other in zip(first.words, second.words, strict=True)
        ]
        assert texts.find_columns(clip, [made], "red") == [(2, ends[0] + 2)]


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_edits_equal_the_written_out_maps(pair: Pair) -> None:
    new, wanted, source = edited(pair), expected(pair), plain(pair.source)
    assert distance(wanted[:1], source) < 1e-5 > distance(new[:1], source)
    assert distance(new, wanted) < 1e-5
    assert distance(wanted[1:], plain(pair.target)) > 1e-2
