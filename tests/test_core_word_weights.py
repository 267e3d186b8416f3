"""Word weights as a factor on values or scores, against maps written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from p2p_core.word_weights import WordWeights, biased_attention, weighted, weighted_values

ROWS, HEADS, QUERIES, KEYS, DIM = 3, 2, 5, 9, 4
POSITIONS = torch.tensor([1, 2, 4, 7])
WEIGHTS = torch.tensor([1.0, 1.5, -0.5, 1.0])


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(
        torch.randn(ROWS, HEADS, n, DIM, generator=generator, dtype=torch.float64)
        for n in (QUERIES, KEYS, KEYS)
    )  # type: ignore[return-value]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def written_out(weights: Tensor, scores: bool) -> Tensor:
    """The map's columns scaled one by one, (B, H, Q, D)."""
    q, k, v = tensors()
    logits = q @ k.mT / math.sqrt(DIM)
    for position, weight in zip(POSITIONS.tolist(), weights.tolist(), strict=True):
        if scores and weight > 0:
            logits[..., position] += math.log(weight)
    maps = logits.softmax(-1)
    out = maps @ v
    kept = [p for p, w in zip(POSITIONS.tolist(), weights.tolist(), strict=True) if w == 1]
    mean = v[..., kept, :].mean(-2, keepdim=True) if kept else torch.zeros_like(v[..., :1, :])
    for position, weight in zip(POSITIONS.tolist(), weights.tolist(), strict=True):
        value, column = v[..., position, None, :], maps[..., position, None]
        if weight < 0:
            out += column * (mean + weight * (value - mean) - value)
        elif not scores or weight == 0:
            out += column * (weight - 1) * value
    return out


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize(
    "weights", [[1.0, 1.5, -0.5, 1.0], [0.0, 3.0, 1.0, 1.0], [-1.0, -2.0, 0.5, 2.0], [1.0] * 4]
)
def test_against_maps_written_out(weights: list[float], scores: bool) -> None:
    q, k, v = tensors()
    words = weighted(POSITIONS, torch.tensor(weights).double(), scores)
    values = weighted_values(v, torch.arange(ROWS), words, 2)
    out = (
        attend(q, k, values)
        if words.bias is None
        else biased_attention(attend, q, k, values, words, 2)
    )
    assert_close(out, written_out(torch.tensor(weights).double(), scores))


@pytest.mark.parametrize("scores", [False, True])
def test_weight_one_changes_no_bit(scores: bool) -> None:
    _, _, v = tensors()
    words = weighted(POSITIONS, torch.ones(4), scores)
    assert words.bias is None
    assert torch.equal(weighted_values(v.float(), torch.arange(ROWS), words, 2), v.float())


def test_only_some_rows() -> None:
    _, _, v = tensors()
    made = weighted_values(v, torch.tensor([0, 2]), weighted(POSITIONS, WEIGHTS.double(), False), 2)
    assert torch.equal(made[1], v[1])
    assert not torch.equal(made[0], v[0]) and not torch.equal(made[2], v[2])


@pytest.mark.parametrize("layout", ["tokens", "tokens, heads"])
def test_every_layout_of_values(layout: str) -> None:
    """(B, L, H * D) and (B, L, H, D) give what (B, H, L, D) gives."""
    _, _, v = tensors()
    words = weighted(POSITIONS, WEIGHTS.double(), False)
    expected = weighted_values(v, torch.arange(ROWS), words, 2).transpose(1, 2)
    given = v.transpose(1, 2)
    if layout == "tokens":
        given, expected = given.flatten(2), expected.flatten(2)
    assert_close(weighted_values(given, torch.arange(ROWS), words, 1), expected)


def test_linear_in_the_weight() -> None:
    _, _, v = tensors()

    def values(weight: float) -> Tensor:
        words = weighted(POSITIONS, torch.tensor([1.0, weight, 1.0, 1.0]).double(), False)
        return weighted_values(v, torch.arange(ROWS), words, 2)

    for low, middle, high in ((1.0, 2.0, 3.0), (-3.0, -2.0, -1.0)):
        assert_close(values(middle), (values(low) + values(high)) / 2)


def test_columns_spread_over_a_text() -> None:
    words = WordWeights(torch.tensor([1, 3]), torch.tensor([2.0, 1.0]))
    weights, are_words = words.spread(6, offset=2)
    assert weights.tolist() == [1, 1, 1, 2, 1, 1]
    assert are_words.nonzero()[:, 0].tolist() == [3, 5]


def test_strength() -> None:
    words = WordWeights(torch.tensor([1, 3]), torch.tensor([1.5, -1.0]))
    assert words.strengthened(2.0).weights.tolist() == [2.0, -3.0]
    assert words.strengthened(0.0).neutral and not words.neutral


def test_half_precision_stays_and_is_near() -> None:
    _, _, v = tensors()
    exact = weighted_values(v, torch.arange(ROWS), weighted(POSITIONS, WEIGHTS, False), 2)
    half = v.bfloat16()
    made = weighted_values(half, torch.arange(ROWS), weighted(POSITIONS, WEIGHTS, False), 2)
    assert made.dtype == torch.bfloat16
    assert_close(made.double(), exact, atol=0.05, rtol=0.02)
