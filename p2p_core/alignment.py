"""Which source column stands for which target column: the mapper R and the refine weight a.

R is (T_s, T_t): the source's attention map M_s (…, T_s) times R is the map handed to the target.
a is (T_t,): 1 where the target column has a partner in the source, 0 where it keeps its own
attention. Hertz et al. 2022 (arXiv:2208.01626), section 3.2.

Words are aligned as a longest common subsequence, so prompts of unequal word counts are fine.
What was not matched between two matches is a replaced span.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .prompt import Prompt, Word

Span = tuple[tuple[Word, ...], tuple[Word, ...]]
Aligner = Callable[[Prompt, Prompt], tuple[Tensor, Tensor]]


def common_words(source: Sequence[Word], target: Sequence[Word]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, taking the earliest match in a tie.

    Needleman-Wunsch with match 1, gap 0 and no substitution, as the reference's refine.
    """
    rows, cols = len(source), len(target)
    best = [[0] * (cols + 1) for _ in range(rows + 1)]
    for i, word in enumerate(source):
        for j, other in enumerate(target):
            diagonal = best[i][j] + (word.tokens == other.tokens)
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j], diagonal)
    pairs, i, j = [], rows, cols
    while i and j:
        if best[i][j] == best[i][j - 1]:
            j -= 1
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def replaced_spans(source: Prompt, target: Prompt) -> Iterator[Span]:
    """Runs of words between matches, present on both sides; paired singly when equally many."""
    matches = [*common_words(source.words, target.words), (len(source.words), len(target.words))]
    i = j = 0
    for next_i, next_j in matches:
        old, new = source.words[i:next_i], target.words[j:next_j]
        if len(old) == len(new):
            yield from (((a,), (b,)) for a, b in zip(old, new, strict=True))
        elif old and new:
            yield old, new
        i, j = next_i + 1, next_j + 1


def _columns(words: Sequence[Word]) -> list[int]:
    return [column for word in words for column in word.columns]


def _connect(mapper: Tensor, old: Sequence[int], new: Sequence[int]) -> None:
    """Map m source columns onto n target columns: pairwise if m = n, else their sum over n."""
    if len(old) == len(new):
        mapper[list(old), list(new)] = 1.0
    elif old and new:
        mapper[torch.tensor(list(old))[:, None], torch.tensor(list(new))] = 1.0 / len(new)


def _connect_unchanged(mapper: Tensor, source: Prompt, target: Prompt) -> None:
    """Matched words, bos, eos, and padding, the latter by its position inside a chunk."""
    for i, j in common_words(source.words, target.words):
        _connect(mapper, source.words[i].columns, target.words[j].columns)
    _connect(mapper, source.bos, target.bos)
    _connect(mapper, source.eos, target.eos)
    old, new = _padding_by_position(source), _padding_by_position(target)
    for position in old.keys() & new.keys():
        _connect(mapper, old[position], new[position])


def _padding_by_position(prompt: Prompt) -> dict[int, list[int]]:
    """The columns of padding, by their position inside a chunk."""
    found: dict[int, list[int]] = defaultdict(list)
    for column in prompt.padding:
        found[(column - prompt.first) % prompt.chunk_length].append(column)
    return found


def _with_refine_weight(mapper: Tensor) -> tuple[Tensor, Tensor]:
    return mapper, (mapper.sum(dim=0) > 0).to(mapper.dtype)


def align_refine(source: Prompt, target: Prompt) -> tuple[Tensor, Tensor]:
    """R (T_s, T_t) and a (T_t,) of attention refinement: only unchanged words are mapped.

    arXiv:2208.01626, eq. for "prompt refinement": columns without a partner keep their own map.
    """
    mapper = torch.zeros(source.length, target.length)
    for old, new in _parts(source, target):
        _connect_unchanged(mapper, old, new)
    return _with_refine_weight(mapper)


def align_replace(source: Prompt, target: Prompt) -> tuple[Tensor, Tensor]:
    """R (T_s, T_t) and a (T_t,) of word swap: as refine, and replaced spans are mapped too.

    arXiv:2208.01626, "word swap". A word that was only added keeps its own attention.
    """
    mapper = torch.zeros(source.length, target.length)
    for part in _parts(source, target):
        _connect_unchanged(mapper, *part)
        for old, new in replaced_spans(*part):
            _connect(mapper, _columns(old), _columns(new))
    return _with_refine_weight(mapper)


def _parts(source: Prompt, target: Prompt) -> list[tuple[Prompt, Prompt]]:
    """The sets of columns that are aligned by themselves."""
    return list(zip(source.parts or (source,), target.parts or (target,), strict=True))
