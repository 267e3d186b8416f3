"""Phrases in the tokens of the host's tokenisers, against the tokenizers' own offsets.

The phrase stands between ‹ and › wherever it should be found, and nowhere else.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import comfy.text_encoders.flux as flux
import comfy.text_encoders.hunyuan_video as hunyuan_video
import pytest
import torch
from comfy.sd1_clip import SDTokenizer
from comfy.text_encoders.lumina2 import Gemma2BTokenizer
from comfy.text_encoders.qwen35 import Qwen35Tokenizer
from families.watching import pack
from text_encoders import trained

pytestmark = pytest.mark.usefixtures("host")

MARKED = [
    # start, middle, end
    "‹red› cat on a bench", "a ‹red› cat", "a photo of a ‹bench›", "‹a red cat›",
    "a ‹cat on a› mat",
    # upper case, other white space
    "‹Cat› and ‹cat› and cats", "a  ‹red›   hat", "a ‹red\n hat› there", "line\n\n‹new›\ttab",
    # quotes, brackets, punctuation
    'a "‹red hat›" there', "the “‹cat›” sat", "it's a ‹cat›'s life", "a [‹red›] hat, a {‹red›} one",
    "‹hat›, scarf; gloves.", "wait... a ‹hat›!", "a hat‹.›", '‹"red"› hat',
    # hyphens, numbers
    "a ‹red›-haired man", "a red-‹haired› man", "a ‹red-haired› man", "snow_‹white› and co",
    "in ‹2026› we", "24 24x24 ‹4› 4k", "f/‹1.8› lens", "room ‹101›, floor 10",
    # repeated, overlapping, part of a word
    "‹cat› ‹cat› cats ‹cat›", "very ‹very big› and ‹very big› dog", "‹lasagne›, a lasagned, las",
    "the ‹turquoise› supercalifragilistic thing", "uncat ‹cat› category",
    # other alphabets
    "ein ‹Größenvergleich› hier", "a ‹cafe\u0301› and a ‹café›", "дом и ‹кошка› спит",
    "Ｆull ‹width›",
    # scripts without spaces, emoji
    "一只红色的‹猫›在凳子上", "一只‹红色›的猫", "‹猫›和狗，‹猫›", "赤い‹ねこ›がいる",
    "작은 ‹고양이›가 잔다",
    "a cat ‹🐱› here", "‹👩‍👩‍👧› at home", "love ‹❤️› it",
]  # fmt: skip
UNKNOWN_TO_T5 = re.compile("[一-鿿ぁ-ん가-힣🐱👩❤а-я\u200d]")
LONE_SPACE = ("▁", "Ġ")


@cache
def tokeniser(name: str) -> Any:
    if name == "clip":
        return SDTokenizer()
    if name == "t5":
        return flux.T5XXLTokenizer()
    if name == "gemma":
        return Gemma2BTokenizer(tokenizer_data=trained())
    if name == "llama":
        return hunyuan_video.LLAMA3Tokenizer()
    kind = Qwen35Tokenizer if name == "qwen3.5" else flux.Qwen3Tokenizer
    return kind(embedding_size=8, embedding_key="qwen") if name == "qwen3.5" else kind()


def places(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and the places that they enclosed."""
    text, found, start = "", [], 0
    for part in re.split("([‹›])", marked):
        if part == "‹":
            start = len(text)
        elif part == "›":
            found.append((start, len(text)))
        else:
            text += part
    return text, found


def spelling(name: str, text: str) -> Any:
    own = tokeniser(name)
    made = pack("nodes.host.words.token_lists").token_lists(
        lambda text: {"own": own.tokenize_with_weights(text, return_word_ids=True)},
        type("Tokenizer", (), {"own": own}),
        text.replace("(", r"\("),
    )
    return made["own"].spelling


def by_offsets(name: str, text: str, start: int, end: int) -> list[int]:
    """Indices among the content tokens that overlap the characters, as the library tells."""
    own = tokeniser(name)
    made = own.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    spans = []
    for token, (a, b) in zip(made["input_ids"], made["offset_mapping"], strict=True):
        lone = own.inv_vocab[token] in LONE_SPACE
        inner = text[a:b]
        spans.append(
            None if lone or not inner.strip() else (a + len(inner) - len(inner.lstrip()), b)
        )
    for i in reversed(range(len(spans) - 1)):
        bare = not own.inv_vocab[made["input_ids"][i + 1]].startswith(LONE_SPACE)
        if spans[i] is None and bare and own.inv_vocab[made["input_ids"][i]] in LONE_SPACE:
            spans[i] = spans[i + 1]
    return [i for i, span in enumerate(spans) if span and span[0] < end and start < span[1]]


@pytest.mark.parametrize("name", ["clip", "t5", "qwen2.5", "qwen3.5", "gemma"])
@pytest.mark.parametrize("marked", MARKED)
def test_phrases(name: str, marked: str) -> None:
    text, expected = places(marked)
    made = spelling(name, text)
    start, end = expected[0]
    assert list(made.find(text[start:end])) == expected
    tokens = [made.tokens_in(*place) for place in expected]
    assert all(tokens)
    known = all(token.known for own in tokens for token in own)
    assert known == (name != "t5" or not UNKNOWN_TO_T5.search(text[start:end]))
    if name != "gemma" and known:
        first = 1 if name == "clip" else 0  # CLIP's begin
        indices = [[token.index - first for token in own] for own in tokens]
        assert indices == [by_offsets(name, text, *place) for place in expected]


@pytest.mark.parametrize("name", ["clip", "t5", "qwen2.5", "qwen3.5", "gemma"])
def test_every_word_is_found_where_it_stands(name: str) -> None:
    """Words tile the text, their tokens the list, and each is found as a phrase."""
    for marked in MARKED:
        text, _ = places(marked)
        made = spelling(name, text)
        own = made.words()
        assert [t.index for t in made.tokens] == sorted({i for word in own for i in word.indices})
        assert sum(len(word.indices) for word in own) == len(made.tokens)
        for word in own:
            if not any("가" <= c <= "힣" for c in word.text):
                assert (word.start, word.end) in made.find(word.text), (marked, word)


@pytest.mark.parametrize("text", ["a bench", "the red hat on a mat"])
def test_a_tokeniser_that_loses_spaces_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="loses spaces"):
        spelling("llama", text)


def test_a_tokeniser_that_loses_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="which is not the prompt"):
        spelling("llama", "猫")


def test_a_tokeniser_of_an_unknown_kind_is_refused() -> None:
    strange = SDTokenizer()
    strange.inv_vocab = {token: f"#{token}" for token in strange.inv_vocab}
    with pytest.raises(ValueError, match="unknown kind"):
        pack("nodes.host.words.token_bytes").pieces(strange, [(5, 1.0, 1)])


def test_embeddings_take_a_column_for_each_vector() -> None:
    pieces = pack("nodes.host.words.token_bytes").pieces
    first, second = torch.zeros(2, 8), torch.zeros(3, 8)
    tokens = [(320, 1.0, 1), *((v, 1.0, 2) for v in first), *((v, 1.0, 3) for v in second)]
    kinds = [getattr(piece, "name", piece) for piece in pieces(SDTokenizer(), tokens)]
    assert kinds == [
        b"a ", "EMBEDDING", "MORE_OF_IT", "EMBEDDING", "MORE_OF_IT", "MORE_OF_IT",
    ]  # fmt: skip
