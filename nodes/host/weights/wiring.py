"""From a prompt with weights to a model that carries them out and the clean prompt's encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import torch

from ....p2p_core.schedule import Window
from ....p2p_core.weighted_text import WeightedText, escape_brackets, parse_weights
from ....p2p_core.word_weights import WordWeights
from ..families.clip_text import checked_clip
from ..runs import WEIGHTS, marked
from ..words.columns import columns_of
from ..words.reading import Reading, read
from ..words.token_lists import token_lists
from .plan import WeightPlan
from .run import with_weights


@dataclass(frozen=True)
class WeightSettings:
    """How weights act, see WeightPlan. strength: 0 for no weights, 1 for those of the text."""

    strength: float = 1.0
    window: Window = Window(0.0, 1.0)
    blocks: frozenset[int] | None = None
    scores: bool = False
    image_only: bool = False


def prompt_weights(
    model: Any, clip: Any, text: str, settings: WeightSettings
) -> tuple[Any, list[list]]:
    """The outputs of P2P Prompt Weights (model, positive).

    Without weights, both are what the host's own nodes give, bit for bit. Raises ValueError for
    weights on what is no word, and for text encoders whose words cannot be found.
    """
    asked = parse_weights(text)
    written = text if asked.text == text else _written(checked_clip(clip), asked.text)
    positive = _encode(checked_clip(clip), written)
    if not asked.spans:
        return model, positive
    reading = read(clip, written, positive[0][0].shape[1])
    words = _word_weights(reading, asked).strengthened(settings.strength)
    if words.neutral:
        return model, positive
    plan = WeightPlan(
        tag=uuid4().hex,
        encodings=tuple(cross[0] for cross, _ in positive),
        words=words,
        window=settings.window,
        blocks=settings.blocks,
        scores=settings.scores,
        image_only=settings.image_only,
        remade=columns_of(clip).remade,
    )
    return with_weights(model, plan), marked(positive, WEIGHTS, plan.tag)


def _encode(clip: Any, text: str) -> list[list]:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def _written(clip: Any, clean: str) -> str:
    """How the clean text is to be given to this CLIP: brackets as they are, or escaped."""
    if escape_brackets(clean) == clean:
        return clean
    used = {key for own in columns_of(clip).sets for key in own.keys}
    for written in (clean, escape_brackets(clean)):
        try:
            lists = token_lists(_tokenizer(clip), clip.tokenizer, written)
        except ValueError:
            continue
        if all(lists[key].spelling.text == clean for key in used):
            return written
    raise ValueError(
        f"This text encoder cannot be given the brackets of the prompt {clean!r}. Write it without "
        "brackets but those of weights."
    )


def _tokenizer(clip: Any) -> Any:
    return lambda text: clip.tokenize(text, return_word_ids=True)


def _word_weights(reading: Reading, asked: WeightedText) -> WordWeights:
    """The columns of all words, and what each of them weighs."""
    by_column = dict.fromkeys(reading.content(), 1.0)
    taken: dict[int, str] = {}
    starts, ends = ({getattr(span, side) for span in asked.spans} for side in ("start", "end"))
    for span in asked.spans:
        phrase = asked.text[span.start : span.end]
        if phrase.isspace() and (span.start in ends or span.end in starts):
            continue  # what a bracket holds besides its inner brackets
        for column in reading.columns(span.start, span.end):
            if column in taken and by_column[column] != span.weight:
                raise ValueError(
                    f"{taken[column]!r} and {phrase!r} share a token of the text encoder, so they "
                    "cannot have two weights. Put a space between them, or give both one weight."
                )
            by_column[column], taken[column] = span.weight, phrase
    columns: Sequence[int] = sorted(by_column)
    weights = [by_column[column] for column in columns]
    return WordWeights(torch.tensor(columns), torch.tensor(weights))
