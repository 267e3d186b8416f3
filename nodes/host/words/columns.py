"""Which columns of an encoding belong to which tokens, found by trying the text encoder.

A tokeniser that reads weights is tried with them: a token of weight 2 moves its own column alone
(T5, CLIP). The others stand before causal encoders: where two prompts differ first, the first
column moves. Every trial is made at two places, which must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..pictured_clip import PicturedClip
from .token_lists import TokenList, Tokens, token_lists

SAMPLE = "red lasagne beside the green bench"
FIRST, LAST = "blue lasagne beside the green bench", "red lasagne beside the green chair"
MOVED, STILL = 0.03, 0.003  # of the column that moved most
KEPT = "_p2p_columns"  # an attribute of the text encoder: gone with it, shared by all its clones
ADAPTED = "t5xxl_ids"  # an encoding whose columns the model makes itself, one for each T5 token
UNREAD = "text_input_ids"  # no encoding at all: the model is its own text encoder


@dataclass(frozen=True)
class ColumnSet:
    """Columns that follow one list of tokens, all or a run of it.

    keys: the lists, if several make the same columns. offset: column - index, counted from the
    first column. tail: tokens at the list's end that have no column. behind: the set stands behind
    another one, so that its columns are counted from the last.
    """

    keys: tuple[str, ...]
    offset: int
    tail: int = 0
    behind: bool = False


@dataclass(frozen=True)
class Columns:
    """The sets of columns of an encoding, in their order.

    cut: tokens that have no column. remade: the model makes the columns itself from the encoding.
    """

    sets: tuple[ColumnSet, ...]
    cut: int = 0
    remade: bool = False

    def promised(self, lists: dict[str, TokenList]) -> int:
        """Columns of the encoding of these tokens, if no picture stands before the text."""
        tokens = sum(lists[own.keys[0]].length for own in self.sets)
        return tokens - self.cut

    def offsets(self, lists: dict[str, TokenList], length: int) -> list[tuple[TokenList, int]]:
        """For every set its list of tokens, and what to add to an index to have the column.

        length: columns of the prompt's encoding. Pictures, which stand before the text in a
        template of their own, become many columns each: then they are counted from the last.
        Raises ValueError for a length that the trial did not promise.
        """
        firsts = [lists[own.keys[0]] for own in self.sets]
        more = 0 if self.remade else length + self.cut - sum(own.length for own in firsts)
        pictures = sum(own.pictures for own in firsts)
        same = all(
            lists[key].length == lists[own.keys[0]].length for own in self.sets for key in own.keys
        )
        if (more and not pictures) or not same:
            raise ValueError(
                f"The text encoder made {length} columns of a prompt where a trial promised "
                f"{length - more}, so its words cannot be found. Leave special tokens out of the "
                "prompt."
            )
        from_end = [
            own.behind or first.pictures > 0 for own, first in zip(self.sets, firsts, strict=True)
        ]
        return [
            (first, length - first.length + own.tail if end else own.offset)
            for own, first, end in zip(self.sets, firsts, from_end, strict=True)
        ]


def columns_of(clip: Any) -> Columns:
    """The columns of a CLIP's encodings, tried out once and kept with its network."""
    kept = clip.cond_stage_model.__dict__
    if KEPT not in kept:
        kept[KEPT] = _tried(clip)
    return kept[KEPT]


def _tried(clip: Any) -> Columns:
    tokens = _tokens(clip, SAMPLE)
    lists = token_lists(partial(_tokens, clip), clip.tokenizer, SAMPLE)
    base, extra = _encode(clip, tokens)
    if UNREAD in extra:
        raise _read_by_the_model(clip)
    if ADAPTED in extra:
        return Columns((ColumnSet(("t5xxl",), 0),), remade=True)
    found: dict[int, list[str]] = {}
    for key, own in lists.items():
        if (offset := _by_weight(clip, tokens, own, base)) is not None:
            found.setdefault(offset, []).append(key)
    if not found:
        for key in lists:
            if (offset := _by_prefix(clip, tokens, key, base)) is not None:
                found.setdefault(offset, []).append(key)
    if not found:
        raise _uncertain(clip)
    sets = [
        ColumnSet(tuple(keys), offset, lists[keys[0]].length + offset - len(base), number > 0)
        for number, (offset, keys) in enumerate(sorted(found.items()))
    ]
    sets[:-1] = [replace(own, tail=0) for own in sets[:-1]]
    return Columns(tuple(sets), sum(lists[own.keys[0]].length for own in sets) - len(base))


def _tokens(clip: Any, text: str) -> Tokens:
    """Of the text alone: a CLIP may read pictures with every prompt."""
    alone = isinstance(clip, PicturedClip)
    return (clip.tokenize_alone if alone else clip.tokenize)(text, return_word_ids=True)


def _read_by_the_model(clip: Any) -> ValueError:
    return ValueError(
        f"Words cannot be followed in a model of this text encoder "
        f"({type(clip.cond_stage_model).__name__}): the model gets token numbers and reads the "
        "prompt by itself, in attention that does not pass through ComfyUI's attention hook. "
        "Nothing was edited; use another model."
    )


def _uncertain(clip: Any) -> ValueError:
    return ValueError(
        f"Which part of the encoding belongs to which word is not certain for this text encoder "
        f"({type(clip.cond_stage_model).__name__}). Use ComfyUI's own loader of the text encoder."
    )


def _encode(clip: Any, tokens: Tokens) -> tuple[Tensor, dict]:
    """The encoding (T, D) of tokens with or without word ids, and what comes beside it."""
    plain = {key: [[t[:2] for t in chunk] for chunk in chunks] for key, chunks in tokens.items()}
    made = clip.encode_from_tokens(plain, return_dict=True)
    return made["cond"][0].float(), made


def _moved(base: Tensor, other: Tensor) -> list[int] | None:
    """Columns that surely moved; None if that is not certain of some, or nothing moved."""
    if base.shape != other.shape:
        return None
    change = (other - base).norm(dim=-1)
    most = float(change.max())
    if not torch.isfinite(change).all() or most <= 1e-4 * float(base.norm(dim=-1).mean()):
        return None
    share = change / most
    if ((share > STILL) & (share < MOVED)).any():
        return None
    return (share >= MOVED).nonzero()[:, 0].tolist()


def _by_weight(clip: Any, tokens: Tokens, own: TokenList, base: Tensor) -> int | None:
    """The offset of a list whose first and last tokens move one column each."""
    first, last = own.spelling.tokens[0].index, own.spelling.tokens[-1].index
    chunk = list(tokens[own.key][0])
    for index in (first, last):
        chunk[index] = (chunk[index][0], 2.0, *chunk[index][2:])
    other, _ = _encode(clip, {**tokens, own.key: [chunk, *tokens[own.key][1:]]})
    moved = _moved(base, other)
    return moved[0] - first if moved is not None and _agree(moved, (first, last)) else None


def _agree(columns: Sequence[int], indices: Sequence[int]) -> bool:
    return len(columns) == len(indices) and columns[1] - columns[0] == indices[1] - indices[0]


def _by_prefix(clip: Any, tokens: Tokens, key: str, base: Tensor) -> int | None:
    """The offset of a list in front of a causal encoder."""
    offsets = set()
    for text in (FIRST, LAST):
        other = _tokens(clip, text)
        pairs = zip(tokens[key][0], other[key][0], strict=False)
        index = next(i for i, (a, b) in enumerate(pairs) if a[0] != b[0])
        moved = _moved_first(base, _encode(clip, other)[0])
        offsets.add(None if moved is None else moved - index)
    [offset, *more] = offsets
    return None if more else offset


def _moved_first(base: Tensor, other: Tensor) -> int | None:
    """The first column that moved, if all before it stood still."""
    if base.shape != other.shape:
        return None
    change = (other - base).norm(dim=-1)
    if not torch.isfinite(change).all() or not change.any():
        return None
    first = int((change >= MOVED * change.max()).nonzero()[0])
    return first if (change[:first] <= STILL * change.max()).all() else None
