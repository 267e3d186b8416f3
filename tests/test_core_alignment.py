"""Alignment by hand tables: which source column stands for which target column."""

from __future__ import annotations

import pytest
import torch
from spelled_prompts import CHUNK, prompt

from p2p_core.alignment import align_refine, align_replace, common_words
from p2p_core.prompt import Prompt


def partners(mapper: torch.Tensor, column: int) -> dict[int, float]:
    """Source columns of a target column and their weights."""
    return {int(i): float(mapper[i, column]) for i in mapper[:, column].nonzero()}


@pytest.mark.parametrize("align", [align_replace, align_refine])
def test_same_prompt_is_the_identity(align) -> None:
    mapper, refine = align(prompt("a", "cat"), prompt("a", "cat"))
    torch.testing.assert_close(mapper, torch.eye(CHUNK))
    torch.testing.assert_close(refine, torch.ones(CHUNK))


def test_swapped_words_of_equal_count_are_paired_word_by_word() -> None:
    source, target = prompt("a", "red", "cat"), prompt("a", "tur-quoise", "dog")
    mapper, _ = align_replace(source, target)
    assert partners(mapper, 2) == partners(mapper, 3) == {2: 0.5}
    assert partners(mapper, 4) == {3: 1.0}


def test_words_of_equal_token_count_are_paired_token_by_token() -> None:
    mapper, _ = align_replace(prompt("las-agne"), prompt("tur-key"))
    assert partners(mapper, 1) == {1: 1.0}
    assert partners(mapper, 2) == {2: 1.0}


def test_a_span_of_other_length_shares_the_sum() -> None:
    mapper, _ = align_replace(prompt("a", "very", "red", "cat"), prompt("a", "dog"))
    assert partners(mapper, 2) == {2: 1.0, 3: 1.0, 4: 1.0}
    mapper, _ = align_replace(prompt("a", "cat"), prompt("a", "big", "red", "dog"))
    for column in (2, 3, 4):
        assert partners(mapper, column)[2] == pytest.approx(1 / 3)


def test_unchanged_words_map_to_where_they_moved() -> None:
    source, target = prompt("a", "cat", "sits"), prompt("a", "big", "cat", "sits")
    mapper, refine = align_refine(source, target)
    assert partners(mapper, 3) == {2: 1.0}
    assert partners(mapper, 4) == {3: 1.0}
    assert partners(mapper, 2) == {}
    assert refine[2] == 0


def test_added_words_keep_their_own_attention_in_a_swap_too() -> None:
    _, refine = align_replace(prompt("a", "cat"), prompt("a", "cat", "sits"))
    assert refine[3] == 0


def test_refine_does_not_map_replaced_words() -> None:
    mapper, refine = align_refine(prompt("a", "cat"), prompt("a", "dog"))
    assert partners(mapper, 2) == {}
    assert refine[2] == 0


def test_eos_follows_the_text_and_padding_its_column() -> None:
    source, target = prompt("a", "cat"), prompt("a", "cat", "sits")
    mapper, refine = align_replace(source, target)
    assert partners(mapper, target.eos[0]) == {source.eos[0]: 1.0}
    assert partners(mapper, CHUNK - 1) == {CHUNK - 1: 1.0}
    shorter, refine = align_replace(target, source)
    assert partners(shorter, target.eos[0]) == {}, "padding where the source has its eos"
    assert refine[target.eos[0]] == 0


def test_more_chunks_share_the_special_columns() -> None:
    mapper, _ = align_replace(prompt("a", "cat"), prompt("a", "cat", chunks=2))
    assert partners(mapper, 0) == partners(mapper, CHUNK) == {0: 0.5}
    assert mapper.shape == (CHUNK, 2 * CHUNK)


def test_ties_take_the_earliest_match() -> None:
    source, target = prompt("a", "cat").words, prompt("a", "cat", "a", "cat").words
    assert common_words(source, target) == [(0, 0), (1, 1)]


def test_phrases_match_whole_words_only() -> None:
    cats = prompt("a", "copy-cat", "and", "a", "cat")
    assert cats.occurrences(prompt("cat").words) == (6,)
    assert cats.occurrences(prompt("a", "cat").words) == (5, 6)
    assert cats.occurrences(prompt("a").words) == (1, 5)
    assert cats.occurrences(()) == ()


def test_padding_is_counted_from_where_its_set_of_columns_begins() -> None:
    """As T5's behind one chunk of CLIP's in the source and behind two in the target."""
    source, target = (
        Prompt(
            "", (), (), (), tuple(range(first + 2, first + 5)), 5, columns=first + 5, first=first
        )
        for first in (7, 14)
    )
    mapper, refine = align_refine(source, target)
    assert [partners(mapper, column) for column in (16, 17, 18)] == [{9: 1.0}, {10: 1.0}, {11: 1.0}]
    assert refine.sum() == 3
