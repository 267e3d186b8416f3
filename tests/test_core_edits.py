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
    cross_attention_change,
    edit_rows,
    edited_cross_attention,
    inject_self_attention,
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
    rows = edit_rows(groups=2, edits=2)
    states = [edit.at(step, 10) for edit in edits] * 2
    cross = CrossEdit(
        rows,
        torch.stack([s.source_map for s in states]),
        torch.stack([s.target_weight for s in states]),
    )
    expected = attend(q, k, v)
    for group in range(2):
        for number, edit in enumerate(edits, start=1):
            s, t = 3 * group, 3 * group + number
            maps = formula(edit, softmax_map(q[s], k[s]), softmax_map(q[t], k[t]), step, 10)
            expected[t] = maps @ v[t]
    torch.testing.assert_close(edited_cross_attention(attend, q, k, v, cross), expected)
    change = cross_attention_change(attend, q, k, v, cross)
    plain = attend(q, k, v)
    torch.testing.assert_close(plain.index_add(0, rows.edited, change), expected)


def test_tiled_prompts_give_the_same_attention() -> None:
    edit = random_edit(CHUNK)
    q, k, v = (torch.randn(2, n, 4, dtype=torch.float64) for n in (5, CHUNK, CHUNK))
    rows = edit_rows(groups=1, edits=1)

    def run(e: PromptEdit, k: Tensor, v: Tensor) -> Tensor:
        state = e.at(1, 4)
        cross = CrossEdit(rows, state.source_map[None], state.target_weight[None])
        return edited_cross_attention(attend, q, k, v, cross)

    tiled = run(edit.tiled(3 * CHUNK), k.repeat(1, 3, 1), v.repeat(1, 3, 1))
    torch.testing.assert_close(tiled, run(edit, k, v))


def test_self_attention_rows_come_from_their_own_source() -> None:
    x = torch.arange(6.0).view(6, 1, 1)
    rows = edit_rows(groups=2, edits=2)
    assert inject_self_attention(x, rows).flatten().tolist() == [0, 0, 0, 3, 3, 3]
    assert edit_rows(groups=1, edits=2, offset=4).edited.tolist() == [5, 6]


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
