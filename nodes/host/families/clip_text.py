"""Stable Diffusion's texts: from a CLIP's tokens to words, columns and conditionings.

SD1 reads a prompt with CLIP-L, SD2 with OpenCLIP-H, SDXL with CLIP-L and OpenCLIP-G side by side.
They share one vocabulary and fill their chunks alike, so a word has the same columns in each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....p2p_core.prompt import Prompt, Word

WORD_END = "</w>"
ENCODERS = {"l": "CLIP-L", "h": "OpenCLIP-H", "g": "OpenCLIP-G"}
FAMILIES = ({"l"}, {"h"}, {"l", "g"})


class _Token(NamedTuple):
    token: int | Tensor
    segment: int
    column: int


def read_prompt(clip: Any, text: str) -> Prompt:
    """Tokenise ``text`` as the host does: weights, embeddings and several chunks included.

    Raises ValueError for text encoders other than those of SD1, SD2 and SDXL.
    """
    tokenizer, chunks = _spelled(clip, text)
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
    words = tuple(_word(tokenizer, group) for group in _word_groups(tokenizer, tokens))
    return Prompt(text, words, bos, tuple(eos), tuple(padding), length)


def _spelled(clip: Any, text: str) -> tuple[Any, list[list[tuple]]]:
    """A tokeniser of the CLIP, and the chunks of (token, weight, segment) it makes of a text."""
    tokens = checked_clip(clip).tokenize(text, return_word_ids=True)
    # SDXL's refiner comes with a tokeniser for an encoder that it does not have.
    read = {name: tokens[name] for name in tokens if hasattr(clip.cond_stage_model, f"clip_{name}")}
    if set(tokens) not in FAMILIES or not read:
        raise ValueError(
            "Prompt-to-Prompt needs the CLIP of an SD1, SD2 or SDXL checkpoint, but this one has "
            f"the text encoders {', '.join(sorted(tokens))}. Load such a checkpoint."
        )
    tokenizers = {name: getattr(clip.tokenizer, f"clip_{name}") for name in read}
    for name, chunks in read.items():
        _check_embeddings(ENCODERS[name], tokenizers[name].embedding_size, text, chunks)
    _check_same_columns(text, read)
    name, chunks = next(iter(read.items()))
    return tokenizers[name], chunks


def checked_clip(clip: Any) -> Any:
    """The CLIP; ValueError if a checkpoint brought none."""
    if clip is None:
        raise ValueError(
            "There is no CLIP: the checkpoint holds no text encoder. Load one with CLIPLoader and "
            "wire it to the edit."
        )
    return clip


def _check_embeddings(
    encoder: str, expected: int, text: str, chunks: Sequence[Sequence[tuple]]
) -> None:
    """ValueError for a textual inversion of another width.

    The tokeniser gives it columns, but the encoder drops it: all later words would stand elsewhere.
    """
    widths = {token.shape[-1] for chunk in chunks for token, *_ in chunk if torch.is_tensor(token)}
    if widths - {expected}:
        raise ValueError(
            f"The prompt {text!r} uses a textual inversion ({_embeddings(text)}) of width "
            f"{', '.join(map(str, sorted(widths - {expected})))}, but this CLIP's {encoder} reads "
            f"width {expected} and would drop it. Use one that was made for this kind of model."
        )


def _check_same_columns(text: str, read: Mapping[str, Sequence[Sequence[tuple]]]) -> None:
    """ValueError if a textual inversion has other columns for one encoder than for another."""
    columns = [[[token[2] for token in chunk] for chunk in chunks] for chunks in read.values()]
    if any(others != columns[0] for others in columns[1:]):
        raise ValueError(
            f"The prompt {text!r} uses a textual inversion ({_embeddings(text)}) that has another "
            f"number of vectors for {' than for '.join(ENCODERS[name] for name in read)}, so its "
            "words would stand in different columns. Use one with as many for both."
        )


def _embeddings(text: str) -> str:
    return ", ".join(re.findall(r"embedding:\s*([^\s,:()]+)", text))


def _word_groups(tokenizer: Any, tokens: Sequence[_Token]) -> Iterator[list[_Token]]:
    """Tokens up to one that ends a word; the vectors of one embedding. Chunks may be crossed."""
    group: list[_Token] = []
    for token in tokens:
        if group and _starts_anew(group[-1], token):
            yield group
            group = []
        group.append(token)
        if not isinstance(token.token, Tensor):
            [(_, spelling)] = tokenizer.untokenize([(token.token, 1.0)])
            if spelling.endswith(WORD_END):
                yield group
                group = []
    if group:
        yield group


def _starts_anew(last: _Token, token: _Token) -> bool:
    vectors = isinstance(last.token, Tensor), isinstance(token.token, Tensor)
    return any(vectors) and (not all(vectors) or last.segment != token.segment)


def _word(tokenizer: Any, group: Sequence[_Token]) -> Word:
    columns = tuple(token.column for token in group)
    vectors = [token.token for token in group if isinstance(token.token, Tensor)]
    if vectors:
        spelled = [vector.detach().cpu().float().numpy().tobytes() for vector in vectors]
        return Word("(embedding)", tuple(spelled), columns)
    ids = [token.token for token in group]
    return Word(tokenizer.decode(ids).strip(), tuple(ids), columns)


def find_columns(clip: Any, prompts: Sequence[Prompt], phrase: str) -> list[tuple[int, ...]]:
    """Columns of every occurrence of a word or phrase, for each of the prompts.

    Raises ValueError if none of them has it.
    """
    words = read_prompt(clip, phrase).words
    found = [prompt.occurrences(words) for prompt in prompts]
    if not any(found):
        raise prompts[-1].missing(phrase)
    return found


def encode_rows(clip: Any, texts: Sequence[str], text_l: str = "") -> list[list[Any]]:
    """A CONDITIONING whose rows are the prompts, each filled up to the columns of the longest.

    Cross-attention (len(texts), T, D), pooled output (len(texts), D). A CLIP that encodes on a
    schedule gives several entries; they are stacked entry by entry. text_l: what SDXL's CLIP-L
    reads in every row instead of the prompt.
    """
    tokens = (clip.tokenize(text) for text in texts)
    if text_l.strip():
        tokens = (_with_text_l(clip, made, text_l) for made in tokens)
    encoded = [clip.encode_from_tokens_scheduled(made) for made in tokens]
    return [_stack(entries) for entries in zip(*encoded, strict=True)]


def _with_text_l(clip: Any, tokens: dict[str, list], text_l: str) -> dict[str, list]:
    """Tokens whose part for CLIP-L is another text, in as many chunks, as the host does it."""
    if not all(hasattr(clip.cond_stage_model, f"clip_{name}") for name in "lg"):
        raise ValueError(
            "text_l is for SDXL, whose two text encoders can read different texts, but this CLIP "
            "has one. Leave text_l empty."
        )
    read_prompt(clip, text_l)  # its embeddings
    chunks, empty = clip.tokenize(text_l)["l"], clip.tokenize("")["l"]
    lacking = len(tokens["g"]) - len(chunks)
    if lacking < 0:
        raise ValueError(
            f"text_l fills {len(chunks)} chunks of 75 tokens, but the shortest prompt only "
            f"{len(tokens['g'])}. Shorten text_l, or leave it empty."
        )
    return {**tokens, "l": [*chunks, *empty * lacking]}


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
