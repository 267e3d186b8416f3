"""The edit's linear form against the formula it was derived from, and time windows."""

from __future__ import annotations

import math

import pytest
import torch
from spelled_prompts import CHUNK, prompt
from torch import Tensor

from p2p_core.alignment import align_replace
from p2p_core.attention import (
    CrossEdit,
    Source,
    attend_columns,
    cross_attention_change,
    edited_cross_attention,
)
from p2p_core.edits import PromptEdit, prompt_edit, with_word_window
from p2p_core.schedule import Window, checked_window, parse_word_windows, step_index

torch.manual_seed(0)


def random_edit(length: int) -> PromptEdit:
    """An edit with arbitrary mapper, refine weights, scales and windows."""
    base = prompt_edit(prompt("a"), prompt("a"), align_replace, Window(0.0, 0.5), Window(0.0, 0.25))
    starts = torch.rand(length) * 0.5
    return PromptEdit(
        source=base.source,
        target=base.target,
        mapper=torch.rand(length, length, dtype=torch.float64),
        refine=torch.rand(length, dtype=torch.float64),
        equalizer=torch.randn(length, dtype=torch.float64) * 3,
        windows=tuple(Window(float(s), float(s) + 0.5) for s in starts),
        self_window=base.self_window,
    )


def softmax_map(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return softmax_map(q, k) @ v


def formula(edit: PromptEdit, m_s: Tensor, m_t: Tensor, step: int, steps: int) -> Tensor:
    """M_new = α·c·(a·(M_s R) + (1-a)·M_t) + (1-α)·M_t, word for word."""
    alpha = torch.tensor([float(w.start <= step / steps < w.end) for w in edit.windows])
    a, c = edit.refine, edit.equalizer
    return alpha * c * (a * (m_s @ edit.mapper) + (1 - a) * m_t) + (1 - alpha) * m_t


@pytest.mark.parametrize("step", [0, 3, 5, 9])
def test_values_changed_beforehand_equal_maps_changed_afterwards(step: int) -> None:
    q, k, v = (torch.randn(6, n, 4, dtype=torch.float64) for n in (7, CHUNK, CHUNK))
    edits = [random_edit(CHUNK), random_edit(CHUNK)]
    states = [edit.at(step, 10) for edit in edits] * 2
    source = Source(*(x[[0, 0, 3, 3]] for x in (q, k)))
    cross = CrossEdit(
        torch.tensor([1, 2, 4, 5]),
        torch.stack([s.source_map for s in states]),
        torch.stack([s.target_weight for s in states]),
    )
    expected = attend(q, k, v)
    for group in range(2):
        for number, edit in enumerate(edits, start=1):
            s, t = 3 * group, 3 * group + number
            maps = formula(edit, softmax_map(q[s], k[s]), softmax_map(q[t], k[t]), step, 10)
            expected[t] = maps @ v[t]
    torch.testing.assert_close(edited_cross_attention(attend, q, k, v, source, cross), expected)
    change = cross_attention_change(attend, q, k, v, source, cross)
    plain = attend(q, k, v)
    torch.testing.assert_close(plain.index_add(0, cross.edited, change), expected)


def test_prompts_of_unequal_length_see_their_own_columns() -> None:
    """A short source and a long edit, a long source and a short edit, in one batch."""
    q, k, v = (torch.randn(4, n, 4, dtype=torch.float64) for n in (5, 9, 9))
    lengths = [4, 9, 9, 6]
    alone = [attend(q[i], k[i, :n], v[i, :n]) for i, n in enumerate(lengths)]
    out = attend_columns(attend, q, k, v, lengths)
    torch.testing.assert_close(out, torch.stack(alone))
    mapper, weight = torch.rand(1, 4, 9, dtype=torch.float64), torch.rand(1, 9, dtype=torch.float64)
    edit = CrossEdit(torch.tensor([1]), mapper, weight)
    source = Source(q[:1], k[:1, :4])
    edited = edited_cross_attention(attend, q, k, v, source, edit, lengths)
    own, other = softmax_map(q[1], k[1]), softmax_map(q[0], k[0, :4])
    torch.testing.assert_close(edited[1], (other @ mapper[0] + own * weight[0]) @ v[1])
    torch.testing.assert_close(edited[3], out[3])
    change = cross_attention_change(attend, q, k, v, source, edit, lengths)
    torch.testing.assert_close(out[1] + change[0], edited[1])


def test_outside_its_window_an_edit_does_nothing() -> None:
    edit = prompt_edit(
        prompt("a", "cat"), prompt("a", "dog"), align_replace, Window(0, 0), Window(0, 0)
    )
    assert not edit.at(0, 20).cross_attention
    assert not edit.at(0, 20).self_attention
    word = with_word_window(edit, [2], Window(0.5, 1.0))
    assert [word.at(step, 4).cross_attention for step in range(4)] == [False, False, True, True]
    assert word.at(2, 4).source_map.nonzero().tolist() == [[2, 2]]


def test_scales_multiply_and_must_be_finite() -> None:
    same = prompt("a", "cat")
    edit = prompt_edit(same, same, align_replace, Window(0, 1), Window(0, 1))
    assert edit.reweighted([2], 2).reweighted([2], -3).equalizer[2] == -6
    assert edit.equalizer[2] == 1, "edits are not changed in place"
    with pytest.raises(ValueError, match="finite"):
        edit.reweighted([2], math.nan)


def test_step_of_a_noise_level() -> None:
    sigmas = [14.6, 7.0, 3.0, 1.0, 0.0]
    assert [step_index(s, sigmas) for s in sigmas[:-1]] == [0, 1, 2, 3]
    assert step_index(20.0, sigmas) == 0, "above the first level"
    assert step_index(5.0, sigmas) == 1, "between two levels, as second-order samplers ask"
    assert step_index(0.1, sigmas) == 3
    assert step_index(7.0 * (1 - 1e-6), sigmas) == 1, "float32 noise"


def test_window_shares_are_half_open() -> None:
    window = checked_window(0.0, 0.8, "cross_replace_steps")
    assert [window.holds(step, 20) for step in (0, 15, 16)] == [True, True, False]


@pytest.mark.parametrize("share", [0.1 + 0.2, 0.3, 0.1 * 3])
def test_a_share_that_is_a_step_but_for_rounding_is_that_step(share: float) -> None:
    assert [Window(0.0, share).holds(step, 10) for step in (2, 3)] == [True, False]
    assert [Window(share, 1.0).holds(step, 10) for step in (2, 3)] == [False, True]


@pytest.mark.parametrize("start, end", [(0.5, 0.2), (-0.1, 0.5), (0.0, 1.1), (math.nan, 1.0)])
def test_bad_windows_are_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="inside 0…1"):
        checked_window(start, end, "a window")


def test_word_windows_text() -> None:
    assert parse_word_windows("cat: 0-0.4\n\n red dog : .2 - 1") == [
        ("cat", Window(0, 0.4)),
        ("red dog", Window(0.2, 1)),
    ]
    with pytest.raises(ValueError, match="word: start-end"):
        parse_word_windows("cat 0.4")
    with pytest.raises(ValueError, match="twice"):
        parse_word_windows("cat: 0-1\ncat: 0-0.5")
    with pytest.raises(ValueError, match="'cat'"):
        parse_word_windows("cat: 0.5-0.2")
