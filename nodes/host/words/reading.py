"""A prompt as a model reads it: its words, and the columns of its encoding that belong to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....p2p_core.alignment import Aligner
from ....p2p_core.prompt import Prompt, Word
from ....p2p_core.spelling import SpelledWord, Spelling
from .columns import columns_of
from .token_lists import TokenList, Tokens, token_lists


@dataclass(frozen=True)
class Reading:
    """A text and the columns that its characters have in an encoding.

    text: without weights and escapes. sets: one for every encoder whose columns stand in a row of
    their own (SD3 has two), with tokens whose index is a column. length: columns of the encoding.
    prompts: the words of each set, by their text, and the columns around them; what is aligned with
    another prompt's, set by set (see ``aligned``).
    """

    text: str
    sets: tuple[Spelling, ...]
    length: int
    prompts: tuple[Prompt, ...]

    def columns(self, start: int, end: int) -> tuple[int, ...]:
        """The columns of the characters [start, end), in all sets.

        Raises ValueError where nothing is read, and where the encoder does not know what it reads.
        """
        found = [spelling.tokens_in(start, end) for spelling in self.sets]
        phrase = self.text[start:end]
        if not all(found):
            raise ValueError(f"{phrase!r} is no word for the text encoder. Name a word.")
        if not all(token.known for tokens in found for token in tokens):
            raise ValueError(
                f"The text encoder does not know {phrase!r}: it reads all such words alike, so "
                "they cannot be told apart. Use a word of a language that it knows."
            )
        return tuple(sorted({token.index for tokens in found for token in tokens}))

    def find(self, phrase: str) -> tuple[tuple[int, int], ...]:
        """Where the phrase stands in the text; ValueError, listing the words, if it does not."""
        places = self.sets[0].find(phrase)
        if not places:
            words = ", ".join(dict.fromkeys(word.text for word in self.prompts[0].words)) or "none"
            raise ValueError(
                f"{phrase!r} is not in the prompt {self.text!r}. Its words are: {words}. Use a "
                "word or phrase of the prompt; separate several with commas."
            )
        return places

    def content(self) -> tuple[int, ...]:
        """The columns of all words: no template, no begin, end or padding."""
        return tuple(sorted({token.index for own in self.sets for token in own.tokens}))


def read(
    clip: Any, text: str, length: int, tokenize: Callable[[str], Tokens] | None = None
) -> Reading:
    """How a CLIP reads the text, of which it made an encoding of ``length`` columns.

    tokenize: how tokens were made of the text, if not plainly. Raises ValueError for text encoders
    whose words cannot be found, and if the parts of one read different texts.
    """
    plain = tokenize or (lambda text: clip.tokenize(text, return_word_ids=True))
    lists = token_lists(plain, clip.tokenizer, text)
    columns = columns_of(clip)
    made = columns.offsets(lists, length)
    texts = {own.spelling.text for own, _ in made}
    if len(texts) > 1:
        raise ValueError(
            f"The parts of the text encoder read the prompt {text!r} differently: "
            f"{' and '.join(map(repr, sorted(texts)))}. Leave out brackets and weights."
        )
    [read_text] = texts
    sets = tuple(_moved(own.spelling, offset) for own, offset in made)
    if columns.remade:  # the encoding is of another tokeniser than the columns
        length = max(length, *(own.length + offset for own, offset in made))
    prompts = (
        _prompt(text, spelling.words(sets), own, offset, length)
        for spelling, (own, offset) in zip(sets, made, strict=True)
    )
    return Reading(read_text, sets, length, tuple(prompts))


def _moved(spelling: Spelling, offset: int) -> Spelling:
    """The spelling with tokens whose index is a column."""
    tokens = (token._replace(index=token.index + offset) for token in spelling.tokens)
    return Spelling(spelling.text, tuple(tokens))


def _prompt(
    text: str, spelled: Sequence[SpelledWord], own: TokenList, offset: int, length: int
) -> Prompt:
    """The words of one set of columns; a word's text, without marks around it, is its token."""

    def columns(indices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(i + offset for i in indices if 0 <= i + offset < length)

    words = tuple(Word(w.text, (_key(w.text),), w.indices) for w in spelled)
    around = [columns(part) for part in (own.before, own.behind, own.padding)]
    if own.pictures and own.before:  # before the words, one token each, but many columns
        around[0] = tuple(range(own.before[-1] + 1 + offset))
    return Prompt(text, words, *around, chunk_length=own.chunk, columns=length, first=offset)


def _key(text: str) -> str:
    """What two occurrences of a word have in common: no case, no quotes or brackets beside it."""
    return re.sub(r"^\W+|\W+$", "", text.casefold()) or text


def aligned(align: Aligner, source: Reading, target: Reading) -> tuple[Tensor, Tensor]:
    """R (T_s, T_t) and a (T_t,) of two prompts, every set of columns by itself."""
    pairs = [align(s, t) for s, t in zip(source.prompts, target.prompts, strict=True)]
    mapper, refine = (torch.stack(parts).sum(dim=0) for parts in zip(*pairs, strict=True))
    return mapper, refine
