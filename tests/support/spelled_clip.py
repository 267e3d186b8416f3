"""A text encoder of the tests: random vectors of a family's width, one for each letter group.

It encodes any text: every word becomes one or two columns, with template columns before and behind.
So prompts of a transformer can be edited without the gigabytes of its true encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from families.watching import pack
from torch import Tensor

BEFORE, BEHIND = 3, 2  # template columns


class SpelledClip:
    """tokenize and encode as a CLIP; extras(tokens, generator) are what the family adds.

    causal: every column also holds a share of those before it, as a language model's do. length:
    the text is padded with zeros to so many columns.
    """

    def __init__(
        self, width: int, extras: Callable[..., dict], causal: bool = True, length: int = 0
    ) -> None:
        self.width, self.extras, self.causal, self.length = width, extras, causal, length

    def tokenize(self, text: str, **_: Any) -> list[str]:
        words = [part for word in text.split() for part in _parts(word)]
        return ["<1>", "<2>", "<3>", *words, "<4>", "<5>"]

    def encode_from_tokens_scheduled(self, tokens: list[str]) -> list[list[Any]]:
        text = torch.cat([self._vector(token) for token in tokens])[None]
        if self.causal:
            before = text.cumsum(1) / torch.arange(1, len(tokens) + 1)[:, None]
            text = text + 0.3 * before
        if self.length:
            text = torch.nn.functional.pad(text, (0, 0, 0, self.length - text.shape[1]))
        generator = torch.Generator().manual_seed(len(tokens))
        return [[text, {"pooled_output": None, **self.extras(text.shape[1], generator)}]]

    def _vector(self, token: str) -> Tensor:
        seed = int.from_bytes(token.encode()[:6], "little")
        return torch.randn(1, self.width, generator=torch.Generator().manual_seed(seed))

    def prompt(self, text: str) -> Any:
        """The text as the pack's Prompt: words, their columns, and the template's."""
        module = pack("p2p_core.prompt")
        column, words = BEFORE, []
        for word in text.split():
            parts = tuple(_parts(word))
            columns = tuple(range(column, column + len(parts)))
            words.append(module.Word(word, parts, columns))
            column += len(parts)
        last = tuple(range(column, column + BEHIND))
        length = self.length or column + BEHIND
        padding = tuple(range(column + BEHIND, length))
        return module.Prompt(text, tuple(words), (0, 1, 2), last, padding, length, columns=length)


def _parts(word: str) -> list[str]:
    return [word] if len(word) < 6 else [word[:4], word[4:]]
