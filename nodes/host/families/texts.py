"""Prompts of any model, read by whoever knows its text encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ....p2p_core.prompt import Prompt, Word
from ..words.columns import columns_of
from ..words.reading import read
from ..words.token_lists import token_lists
from . import clip_text


def read_prompt(clip: Any, text: str) -> Prompt:
    """The words of a prompt and their columns; ValueError where an encoder's cannot be found."""
    return _read(clip, text, _columns)


def _read(clip: Any, text: str, pictured: Callable[[Any, str], int]) -> Prompt:
    """pictured: the columns of an encoding that holds pictures, which tokens do not tell."""
    names = set(clip_text.checked_clip(clip).tokenize(text))
    if names in clip_text.FAMILIES:
        return clip_text.read_prompt(clip, text)
    lists = token_lists(
        lambda text: clip.tokenize(text, return_word_ids=True), clip.tokenizer, text
    )
    seen = any(own.pictures for own in lists.values())
    length = pictured(clip, text) if seen else columns_of(clip).promised(lists)
    prompts = read(clip, text, length).prompts
    return prompts[0] if len(prompts) == 1 else _joined(prompts)


@torch.inference_mode()
def _columns(clip: Any, text: str) -> int:
    """Columns of an encoding: pictures in a prompt become as many as their size asks for."""
    [(cross_attn, _), *_] = encode(clip, text)
    return cross_attn.shape[1]


def encode(clip: Any, text: str) -> list[list]:
    """The CONDITIONING of a prompt, as CLIPTextEncode makes it."""
    return clip_text.checked_clip(clip).encode_from_tokens_scheduled(clip.tokenize(text))


def _joined(prompts: Sequence[Prompt]) -> Prompt:
    """One prompt of several sets of columns: a word has its columns in each of them."""
    first = prompts[0]
    if any([w.tokens for w in p.words] != [w.tokens for w in first.words] for p in prompts):
        raise ValueError(
            f"The parts of the text encoder read the prompt {first.text!r} as different words. "
            "Leave out brackets, weights and rare characters."
        )
    words = [
        Word(same[0].text, same[0].tokens, tuple(c for word in same for c in word.columns))
        for same in zip(*(p.words for p in prompts), strict=True)
    ]
    around = ("bos", "eos", "padding")
    joined = {name: tuple(c for p in prompts for c in getattr(p, name)) for name in around}
    return replace(first, words=tuple(words), parts=tuple(prompts), **joined)


def find_columns(clip: Any, prompts: Sequence[Prompt], phrase: str) -> list[tuple[int, ...]]:
    """Columns of every occurrence of a word or phrase, for each of the prompts.

    Raises ValueError if none of them has it.
    """
    words = _read(clip, phrase, lambda *_: 0).words
    found = [prompt.occurrences(words) for prompt in prompts]
    if not any(found):
        raise prompts[-1].missing(phrase)
    return found
