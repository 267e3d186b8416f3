"""Prompts spelled by hand, without a tokenizer."""

from __future__ import annotations

from p2p_core.prompt import Prompt, Word

CHUNK = 12


def prompt(*words: str, chunks: int = 1) -> Prompt:
    """A prompt whose words are spelled with their tokens: "tur-quoise" is one word of two."""
    made, column = [], 1
    for word in words:
        tokens = tuple(word.split("-"))
        made.append(Word(word, tokens, tuple(range(column, column + len(tokens)))))
        column += len(tokens)
    offsets = range(0, CHUNK * chunks, CHUNK)
    eos = tuple(offset + (column if offset == 0 else 1) for offset in offsets)
    taken = {*range(column), *offsets, *eos}
    padding = tuple(i for i in range(CHUNK * chunks) if i not in taken)
    return Prompt(" ".join(words), tuple(made), tuple(offsets), eos, padding, CHUNK)
