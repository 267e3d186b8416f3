"""What the tokens of the host's tokenisers spell, byte by byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice
from numbers import Integral
from typing import Any

from torch import Tensor

from ....p2p_core.token_pieces import Opaque, Piece

WORD_END = "</w>"  # CLIP: a word ends here
BYTE_SPACE = "Ġ"  # byte-level BPE: Qwen, Llama 3, Mistral
PIECE_SPACE = "▁"  # sentencepiece: T5, Gemma
UNKNOWN = "<unk>"
KEPT = "_p2p_speller"  # an attribute of the tokeniser, of whose kind it tells
SAMPLE = 20_000  # names of a vocabulary that tell its kind
RAW_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def pieces(tokenizer: Any, tokens: Sequence[tuple]) -> list[Piece]:
    """What each of the tokens spells; nothing for what stands for a picture.

    tokenizer: the host's SDTokenizer that made them. Raises ValueError for another kind.
    """
    made: list[Piece] = []
    spell = _speller(tokenizer)
    segment = None
    for token, _, *rest in tokens:
        vector = isinstance(token, Tensor)
        if vector:
            made.append(Opaque.MORE_OF_IT if rest == segment else Opaque.EMBEDDING)
        elif isinstance(token, Integral):
            spelling = tokenizer.inv_vocab.get(int(token), "")
            made.append(Opaque.UNKNOWN if spelling == UNKNOWN else spell(spelling))
        else:
            made.append(b"")
        segment = rest if vector else None
    return made


def _speller(tokenizer: Any) -> Callable[[str], bytes]:
    """The function from a token's name in this tokeniser's vocabulary to its bytes."""
    kept = tokenizer.__dict__
    if KEPT not in kept:
        kept[KEPT] = _kind(tokenizer)
    return kept[KEPT]


def _kind(tokenizer: Any) -> Callable[[str], bytes]:
    names = list(islice(getattr(tokenizer, "inv_vocab", {}).values(), SAMPLE))
    counts = {
        _clip: sum(name.endswith(WORD_END) for name in names),
        _byte_level: sum(name.startswith(BYTE_SPACE) for name in names),
        _sentencepiece: sum(name.startswith(PIECE_SPACE) for name in names),
    }
    spell = max(counts, key=lambda kind: counts[kind])
    if not counts[spell]:
        raise ValueError(
            f"The words of this text encoder cannot be read: {type(tokenizer).__name__} is a "
            "tokeniser of an unknown kind. Use ComfyUI's own loader of the text encoder."
        )
    return spell


def _clip(name: str) -> bytes:
    whole = name.removesuffix(WORD_END)
    return _byte_level(whole) + (b" " if whole != name else b"")


def _byte_level(name: str) -> bytes:
    """GPT-2's spelling of bytes; a name outside its alphabet is a special token, taken as it is."""
    alphabet = _alphabet()
    if all(char in alphabet for char in name):
        return bytes(alphabet[char] for char in name)
    return name.encode("utf-8")


def _sentencepiece(name: str) -> bytes:
    raw = RAW_BYTE.fullmatch(name)
    return bytes([int(raw[1], 16)]) if raw else name.replace(PIECE_SPACE, " ").encode("utf-8")


@cache
def _alphabet() -> dict[str, int]:
    """The 256 characters that stand for bytes: those that are seen for themselves, others moved."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = (byte for byte in range(256) if byte not in seen)
    return {chr(b): b for b in seen} | {chr(256 + i): b for i, b in enumerate(hidden)}
