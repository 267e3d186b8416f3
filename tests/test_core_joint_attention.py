"""The algebra of joint attention, against explicit softmax maps in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from p2p_core.attention import as_rows
from p2p_core.joint_attention import (
    JointEdit,
    Places,
    at,
    indicator_values,
    joint_hybrid,
    joint_qk,
    scaled_values,
    word_mass,
)

Triple = tuple[Tensor, Tensor, Tensor]
HEADS, DIM = 3, 8
TEXT, IMAGE, OTHER = 5, 6, 2
LENGTH = TEXT + IMAGE + OTHER


def maps(q: Tensor, k: Tensor) -> Tensor:
    """(B, H, Q, L) from (B, L, H * D)."""
    q, k = (x.unflatten(-1, (HEADS, DIM)).transpose(1, 2) for x in (q, k))
    return (q @ k.mT / math.sqrt(DIM)).softmax(-1)


def product(m: Tensor, v: Tensor) -> Tensor:
    return (m @ v.unflatten(-1, (HEADS, DIM)).transpose(1, 2)).transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return product(maps(q, k), v)


def attend_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, H, L, D) in, (B, Q, H * D) out, as the host's attention."""
    return ((q @ k.mT / math.sqrt(DIM)).softmax(-1) @ v).transpose(1, 2).flatten(2)


def random(rows: int, length: int = LENGTH, seed: int = 0) -> Triple:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, rows, length, HEADS * DIM)
    q, k, v = torch.randn(shape, generator=generator, dtype=torch.float64)
    return 2 * q, k, v


def places(text: int = TEXT, first: int = 1, sliced: bool = False) -> Places:
    """Registers, text, image, registers: nothing stands at an end."""
    length = LENGTH - TEXT + text
    words, image = list(range(first, first + text)), list(range(first + text, first + text + IMAGE))
    others = [i for i in range(length) if i not in image]
    rest = [i for i in others if i not in words]
    if sliced:
        return Places(
            *(as_rows(x, torch.device("cpu")) for x in (words, image, rest, image, others))
        )
    return Places(*map(torch.tensor, (words, image, rest, image, others)))


def hybrid(
    attention: Callable, edited: Triple, source: tuple[Tensor, Tensor], edit: JointEdit,
    here: Places, there: Places,
) -> Tensor:  # fmt: skip
    q, k, v = edited
    source_q, source_k = source
    return joint_hybrid(
        lambda values: attention(at(source_q, there.queries), source_k, values),
        lambda queries, values: attention(at(q, queries), k, values),
        v, source_k.shape[-2], edit, here, there,
    )  # fmt: skip


def explicit_hybrid(
    edited: tuple[Tensor, Tensor, Tensor], source: tuple[Tensor, Tensor],
    edit: JointEdit, here: Places, there: Places,
) -> Tensor:  # fmt: skip
    """The joint map of the image queries written out, column by column."""
    q, k, v = edited
    own, other = maps(q, k), maps(*source)
    new = torch.zeros(*own.shape[:2], IMAGE, LENGTH if own.shape[-1] == LENGTH else own.shape[-1])
    new = new.double()
    m_s, m_e = other[:, :, there.queries], own[:, :, here.queries]
    beta = edit.self_attention[:, None, None, None].double()
    for column in range(own.shape[-1]):
        if column in here.text:
            j = int((here.text == column).nonzero())
            mapped = m_s[..., there.text] @ edit.source_map[:, None, :, j, None]
            weight = edit.target_weight[:, j, None, None]
            new[..., column] = mapped[..., 0] + weight * m_e[..., column]
        else:
            before = column < int(here.text[0])
            shift = 0 if before else other.shape[-1] - own.shape[-1]
            kept = beta[..., 0] * m_s[..., column + shift]
            new[..., column] = kept + (1 - beta[..., 0]) * m_e[..., column]
    full = own.clone()
    full[:, :, here.queries] = new
    return product(full, v)


@pytest.mark.parametrize("source_text", [TEXT, TEXT + 3])
@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("sliced", [True, False])
def test_hybrid_is_the_written_out_map(source_text: int, beta: bool, sliced: bool) -> None:
    q, k, v = random(2)
    source_q, source_k, _ = random(2, LENGTH + source_text - TEXT, seed=1)
    generator = torch.Generator().manual_seed(2)
    edit = JointEdit(
        torch.rand(2, source_text, TEXT, generator=generator, dtype=torch.float64),
        torch.rand(2, TEXT, generator=generator, dtype=torch.float64),
        torch.tensor([beta, True]),
    )
    here, there = places(), places(source_text)
    new = hybrid(attend, (q, k, v), (source_q, source_k), edit, here, there)
    expected = explicit_hybrid((q, k, v), (source_q, source_k), edit, here, there)
    if sliced:
        here, there = places(sliced=True), places(source_text, sliced=True)
        again = hybrid(attend, (q, k, v), (source_q, source_k), edit, here, there)
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(new, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("beta", [True, False])
def test_one_beta_for_all_rows(beta: bool) -> None:
    q, k, v = random(2)
    source = random(2, seed=1)[:2]
    maps = torch.rand(2, TEXT, TEXT).double(), torch.rand(2, TEXT).double()
    here = places()
    one = hybrid(attend, (q, k, v), source, JointEdit(*maps, beta), here, here)
    each = hybrid(attend, (q, k, v), source, JointEdit(*maps, torch.tensor([beta] * 2)), here, here)
    torch.testing.assert_close(one, each, rtol=0, atol=1e-13)


def test_hybrid_with_equal_prompts_changes_nothing() -> None:
    q, k, v = random(1)
    edit = JointEdit(torch.eye(TEXT)[None].double(), torch.zeros(1, TEXT), torch.tensor([True]))
    here = places()
    new = hybrid(attend, (q, k, v), (q, k), edit, here, here)
    torch.testing.assert_close(new, attend(q, k, v), rtol=0, atol=1e-13)


def test_hybrid_takes_heads_in_an_axis_of_their_own() -> None:
    q, k, v = random(2)
    source_q, source_k, _ = random(2, seed=1)
    edit = JointEdit(
        torch.rand(2, TEXT, TEXT).double(), torch.rand(2, TEXT), torch.tensor([True, False])
    )
    flat = hybrid(attend, (q, k, v), (source_q, source_k), edit, places(), places())
    q, k, v, source_q, source_k = (
        x.unflatten(-1, (HEADS, DIM)).transpose(1, 2) for x in (q, k, v, source_q, source_k)
    )
    new = hybrid(attend_by_head, (q, k, v), (source_q, source_k), edit, places(), places())
    torch.testing.assert_close(new, flat, rtol=0, atol=1e-13)


def test_other_positions_must_pair() -> None:
    q, k, v = random(1)
    source_q, source_k, _ = random(1, LENGTH + 1)
    edit = JointEdit(torch.eye(TEXT)[None].double(), torch.ones(1, TEXT), torch.tensor([True]))
    longer = places()._replace(rest=torch.tensor([0, LENGTH - 1, LENGTH]))
    with pytest.raises(ValueError, match="has 3 attention positions .* prompt 2: they cannot"):
        hybrid(attend, (q, k, v), (source_q, source_k), edit, places(), longer)


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 1])])
@pytest.mark.parametrize("sliced", [True, False])
def test_qk_takes_the_image_positions_of_the_source(rows: Any, sliced: bool) -> None:
    q, _, _ = random(3)
    before, image = q.clone(), list(range(1 + TEXT, 1 + TEXT + IMAGE))
    longer = random(2, LENGTH + 4, seed=1)[0]
    here: Any = slice(image[0], image[-1] + 1) if sliced else torch.tensor(image)
    there: Any = slice(image[0] + 4, image[-1] + 5) if sliced else torch.tensor(image) + 4
    new = joint_qk(q, rows, longer, here, there)
    expected = q.clone()
    for number, row in enumerate([1, 2] if isinstance(rows, slice) else [2, 1]):
        for position in image:
            expected[row, position] = longer[number, position + 4]
    assert torch.equal(new, expected) and torch.equal(q, before)


def test_scaled_values_scale_the_columns_of_the_map() -> None:
    q, k, v = random(2)
    text = places().text
    scale = torch.tensor([1, 2.5, 0, -1, 1], dtype=torch.float64)
    weight = torch.ones(LENGTH, dtype=torch.float64)
    weight[text] = scale
    new = attend(q, k, scaled_values(v, text, scale))
    torch.testing.assert_close(new, product(maps(q, k) * weight, v), rtol=0, atol=1e-13)


def test_negative_values_turn_about_the_mean_of_the_others() -> None:
    _, _, v = random(2)
    text = places().text
    scale = torch.tensor([[1, 2, -1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.float64)
    new = scaled_values(v, text, scale, mean=True)
    centre = v[0, text[[0, 3, 4]]].mean(0)
    torch.testing.assert_close(new[0, text[2]], 2 * centre - v[0, text[2]])
    torch.testing.assert_close(new[0, text[1]], 2 * v[0, text[1]])
    assert torch.equal(new[1], v[1])


def test_scale_one_changes_no_bit() -> None:
    _, _, v = random(2)
    assert torch.equal(scaled_values(v, places().text, torch.ones(TEXT), mean=True), v)


@pytest.mark.parametrize("by_head", [False, True])
def test_word_mass_is_the_sum_of_the_word_s_columns(by_head: bool) -> None:
    q, k, v = random(2)
    words = [torch.tensor([1]), torch.tensor([3, 4]), torch.tensor([], dtype=torch.long)]
    expected = [maps(q, k)[..., word].sum(-1).mean(1) for word in words]
    if by_head:
        q, k, v = (x.unflatten(-1, (HEADS, DIM)).transpose(1, 2) for x in (q, k, v))
    mass = word_mass(attend_by_head if by_head else attend, q, k, v, words, HEADS)
    torch.testing.assert_close(mass, torch.stack(expected, -1).float(), rtol=0, atol=1e-6)


def test_more_words_than_channels_are_refused() -> None:
    _, _, v = random(1)
    words = [torch.tensor([0])] * (DIM + 1)
    with pytest.raises(ValueError, match="At most 8 words .* got 9"):
        indicator_values(v, words, HEADS)
