"""Prompts of any encoder as words that can be aligned, by their text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families.watching import pack
from text_encoders import encoder

pytestmark = pytest.mark.usefixtures("host")


def reading(family: str, text: str) -> Any:
    clip = encoder(family)
    with torch.inference_mode():
        cond = clip.encode_from_tokens(clip.tokenize(text))
        return pack("nodes.host.words.reading").read(clip, text, cond.shape[1])


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a red cat",
        "don't look, it's a cat's life!",
        "very " * 60 + "long one",
        "lasagne",
    ],
)
def test_like_the_reading_of_stable_diffusion(text: str) -> None:
    """The columns around the words and of each word are those that CLIP's own reader finds."""
    [made] = reading("SD1.5", text).prompts
    expected = pack("nodes.host.families.clip_text").read_prompt(encoder("SD1.5"), text)
    assert [word.columns for word in made.words] == [word.columns for word in expected.words]
    for name in ("bos", "eos", "padding", "length"):
        assert getattr(made, name) == getattr(expected, name)


def pairs(family: str, source: str, target: str, kind: str) -> dict[int, list[int]]:
    """The source columns of every target column that has some."""
    align = getattr(pack("p2p_core.alignment"), f"align_{kind}")
    one, other = reading(family, source), reading(family, target)
    mapper, refine = pack("nodes.host.words.reading").aligned(align, one, other)
    assert torch.equal(refine > 0, mapper.sum(dim=0) > 0)
    return {int(t): mapper[:, t].nonzero()[:, 0].tolist() for t in refine.nonzero()[:, 0]}


def test_words_keep_their_partners_wherever_they_stand() -> None:
    """ "red" has another token at the start, in quotes and behind a bracket."""
    found = pairs("Qwen-Image", "red cat on a bench", "a big cat on a (red) bench", "refine")
    one, other = (
        reading("Qwen-Image", "red cat on a bench"),
        reading("Qwen-Image", "a big cat on a (red) bench"),
    )
    for phrase in ("cat on a", "bench"):
        [(s, e)], [(a, b)] = one.find(phrase), other.find(phrase)
        for column, partner in zip(other.columns(a, b), one.columns(s, e), strict=True):
            assert found[column] == [partner]
    tail = [other.length - n for n in range(1, 6)]
    assert [found[column] for column in tail] == [[one.length - n] for n in range(1, 6)]


@pytest.mark.parametrize("family", ["Qwen-Image", "Klein", "Flux.1", "Lumina 2", "LongCat"])
def test_a_swap_maps_every_column(family: str) -> None:
    found = pairs(family, "a red cat on a bench", "a blue dog on a bench", "replace")
    one, other = (
        reading(family, text) for text in ("a red cat on a bench", "a blue dog on a bench")
    )
    [(s, e)], [(a, b)] = one.find("cat"), other.find("dog")
    assert found[other.columns(a, b)[0]] == list(one.columns(s, e))
    content = set(other.content())
    assert content <= set(found)
    ends = other.prompts[0].bos + other.prompts[0].eos
    assert set(ends) <= set(found)


def test_sets_are_aligned_by_themselves() -> None:
    found = pairs("SD3", "a red cat on a bench", "a turquoise supercalifragilistic cat", "replace")
    assert all((t < 77) == (s < 77) for t, sources in found.items() for s in sources)
    assert found[0] == [0]


def test_a_word_in_quotes_is_the_same_word() -> None:
    found = pairs("Z-Image", "a cat and a hat", "a 'cat' and a \"hat\"", "refine")
    one, other = reading("Z-Image", "a cat and a hat"), reading("Z-Image", "a 'cat' and a \"hat\"")
    for phrase in ("cat", "hat"):
        [(s, e)], [(a, b)] = one.find(phrase), other.find(phrase)
        assert found[other.columns(a, b)[-1]] == list(one.columns(s, e))
