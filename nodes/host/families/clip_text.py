"""Stable Diffusion's texts: from a CLIP's tokens to words, columns and conditionings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....p2p_core.prompt import Prompt, Word

WORD_END = "</w>"


class _Token(NamedTuple):
    token: int | Tensor
    segment: int
    column: int


def read_prompt(clip: Any, text: str) -> Prompt:
    """Tokenise ``text`` as the host does: weights, embeddings and several chunks included.

    Raises ValueError for a text encoder other than Stable Diffusion 1.x's.
    """
    chunks = _sd1_chunks(clip, text)
    length = len(chunks[0])
    tokens, eos, padding = [], [], []
    for number, chunk in enumerate(chunks):
        offset = number * length
        content = [i for i, (_, _, segment) in enumerate(chunk) if segment != 0]
        end = (content[-1] if content else 0) + 1
        tokens += [_Token(chunk[i][0], chunk[i][2], offset + i) for i in content]
        eos.append(offset + end)
        padding += range(offset + end + 1, offset + length)
    bos = tuple(range(0, length * len(chunks), length))
    words = tuple(_word(clip, group) for group in _word_groups(clip, tokens))
    return Prompt(text, words, bos, tuple(eos), tuple(padding), length)


def _sd1_chunks(clip: Any, text: str) -> list[list[tuple]]:
    tokens = checked_clip(clip).tokenize(text, return_word_ids=True)
    if set(tokens) != {"l"}:
        raise ValueError(
            "Prompt-to-Prompt needs the CLIP of a Stable Diffusion 1.x checkpoint (one CLIP-L text "
            f"encoder), but this one has the encoders {', '.join(sorted(tokens))}. SD2, SDXL and "
            "transformer models are not supported yet: load an SD1.x checkpoint."
        )
    _check_embeddings(clip.tokenizer.clip_l.embedding_size, text, tokens["l"])
    return tokens["l"]


def checked_clip(clip: Any) -> Any:
    """The CLIP; ValueError if a checkpoint brought none."""
    if clip is None:
        raise ValueError(
            "There is no CLIP: the checkpoint holds no text encoder. Load one with CLIPLoader and "
            "wire it to the edit."
        )
    return clip


def _check_embeddings(expected: int, text: str, chunks: Sequence[Sequence[tuple]]) -> None:
    """ValueError for a textual inversion of another width.

    The tokeniser gives it columns, but the encoder drops it: all later words would stand elsewhere.
    """
    widths = {token.shape[-1] for chunk in chunks for token, *_ in chunk if torch.is_tensor(token)}
    if widths - {expected}:
        names = ", ".join(re.findall(r"embedding:\s*([^\s,:()]+)", text))
        raise ValueError(
            f"The prompt {text!r} uses a textual inversion ({names}) of width "
            f"{', '.join(map(str, sorted(widths - {expected})))}, but this CLIP reads width "
            f"{expected} and would drop it. Use one that was made for this kind of model."
        )


def _word_groups(clip: Any, tokens: Sequence[_Token]) -> Iterator[list[_Token]]:
    """Tokens up to one that ends a word; the vectors of one embedding. Chunks may be crossed."""
    group: list[_Token] = []
    for token in tokens:
        if group and _starts_anew(group[-1], token):
            yield group
            group = []
        group.append(token)
        if not isinstance(token.token, Tensor):
            [(_, spelling)] = clip.tokenizer.untokenize([(token.token, 1.0)])
            if spelling.endswith(WORD_END):
                yield group
                group = []
    if group:
        yield group


def _starts_anew(last: _Token, token: _Token) -> bool:
    vectors = isinstance(last.token, Tensor), isinstance(token.token, Tensor)
    return any(vectors) and (not all(vectors) or last.segment != token.segment)


def _word(clip: Any, group: Sequence[_Token]) -> Word:
    columns = tuple(token.column for token in group)
    vectors = [token.token for token in group if isinstance(token.token, Tensor)]
    if vectors:
        spelled = [vector.detach().cpu().float().numpy().tobytes() for vector in vectors]
        return Word("(embedding)", tuple(spelled), columns)
    ids = [token.token for token in group]
    return Word(clip.tokenizer.decode(ids).strip(), tuple(ids), columns)


def find_columns(clip: Any, prompts: Sequence[Prompt], phrase: str) -> list[tuple[int, ...]]:
    """Columns of every occurrence of a word or phrase, for each of the prompts.

    Raises ValueError if none of them has it.
    """
    words = read_prompt(clip, phrase).words
    found = [prompt.occurrences(words) for prompt in prompts]
    if not any(found):
        raise prompts[-1].missing(phrase)
    return found


def encode_rows(clip: Any, texts: Sequence[str]) -> list[list[Any]]:
    """A CONDITIONING whose rows are the prompts, each filled up to the columns of the longest.

    Cross-attention (len(texts), T, D), pooled output (len(texts), D). A CLIP that encodes on a
    schedule gives several entries; they are stacked entry by entry.
    """
    encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]
    return [_stack(entries) for entries in zip(*encoded, strict=True)]


def _stack(entries: Sequence[list[Any]]) -> list[Any]:
    length = max(cross.shape[1] for cross, _ in entries)
    cross = torch.cat([filled(cross, length) for cross, _ in entries])
    values = dict(entries[0][1])
    if isinstance(values.get("pooled_output"), Tensor):
        values["pooled_output"] = torch.cat([extra["pooled_output"] for _, extra in entries])
    return [cross, values]


def filled(cross: Tensor, length: int) -> Tensor:
    """A text (B, T, D) repeated to ``length`` columns.

    A whole repeat changes nothing: softmax over f copies of a column gives each 1/f of its weight.
    """
    return cross.repeat(1, -(-length // cross.shape[1]), 1)[:, :length]


def tiled_rows(cross: Tensor, lengths: Sequence[int]) -> Tensor:
    """Rows (B, T, D) that were filled up, in whole repeats, for whoever reads every column."""
    length = math.lcm(*lengths)
    rows = [filled(row[None, :own], length) for row, own in zip(cross, lengths, strict=True)]
    return torch.cat(rows)
