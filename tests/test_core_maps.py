"""Coarse maps, local blend masks and heat maps, by hand-made maps."""

from __future__ import annotations

import pytest
import torch

from p2p_core.attention import CrossEdit
from p2p_core.local_blend import (
    LocalBlend,
    RegionReader,
    WordRegion,
    blend,
    resize_region,
    threshold_mask,
)
from p2p_core.maps import MapStore, attention_map, coarse_level, edited_map, size_at
from p2p_core.pictures import heat, normalised
from p2p_core.schedule import Window

NOTHING = WordRegion((), ())


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (16, 16)), ((64, 96), (16, 24)), ((45, 80), (12, 20)), ((16, 16), (16, 16))],
)
def test_the_coarse_resolution_follows_the_latent(size, expected) -> None:
    assert size_at(size, coarse_level(size, (0, 1, 2, 3))) == expected


def test_maps_are_softmax_averaged_over_heads() -> None:
    q, k = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    maps = attention_map(q, k, heads=2)
    heads = [(q[..., i : i + 4] @ k[..., i : i + 4].mT / 2).softmax(-1) for i in (0, 4)]
    torch.testing.assert_close(maps, torch.stack(heads).mean(0))
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 5))
    short = attention_map(q, k, heads=2, lengths=[2, 3])
    torch.testing.assert_close(short[1], maps[1])
    torch.testing.assert_close(short[:1, :, :2], attention_map(q[:1], k[:1, :2], heads=2))
    assert not short[0, :, 2].any()


def test_edited_maps_follow_the_edit() -> None:
    maps = torch.rand(4, 5, 3)
    source_map, weight = torch.rand(2, 3, 3), torch.rand(2, 3)
    edit = CrossEdit(torch.tensor([1, 3]), source_map, weight)
    out = edited_map(maps, maps[[0, 2]], edit)
    torch.testing.assert_close(out[0::2], maps[0::2])
    torch.testing.assert_close(out[3], maps[2] @ source_map[1] + maps[3] * weight[1])


def store_with(*steps: torch.Tensor, bins: int = 9) -> MapStore:
    store = MapStore((2, 3), steps=len(steps), bins=bins)
    for step, maps in enumerate(steps):
        store.add(step, maps)
    return store


def test_a_store_sums_layers_and_selects_steps() -> None:
    early, late = torch.rand(2, 6, 4), torch.rand(2, 6, 4)
    store = store_with(early, late)
    store.add(1, late)
    whole = store.words([1], [0, 2])
    torch.testing.assert_close(whole[0].flatten(), (early + 2 * late)[1][:, [0, 2]].sum(-1))
    first = store.words([0], [3], Window(0, 0.5))
    torch.testing.assert_close(first[0].flatten(), early[0, :, 3])
    with pytest.raises(ValueError, match="wider range"):
        store.words([0], [3], Window(0.9, 1.0))
    kept = store.kept()
    ratio = kept.words([1], [0]) / store.words([1], [0])
    torch.testing.assert_close(
        ratio, torch.full_like(ratio, float(ratio[0, 0, 0])), rtol=5e-3, atol=0
    )


def test_threshold_mask_pools_resizes_and_normalises() -> None:
    maps = torch.zeros(2, 8, 8)
    maps[0, 2, 2], maps[0, 6, 6], maps[1, 0, 0] = 10.0, 2.0, 1e-3
    mask = threshold_mask(maps, (16, 16), 0.3, pool=True)
    assert mask[0].sum() == 36, "3x3 cells of 2x2 pixels around the peak, the weak one left out"
    assert mask[0, 2:8, 2:8].all()
    assert mask[1].sum() == 16, "every row is normalised by its own maximum"
    assert threshold_mask(maps, (16, 16), 0.1, pool=False)[0].sum() == 8


def test_negative_attention_marks_its_region_too() -> None:
    """A word with a negative scale has negative maps."""
    maps = torch.zeros(1, 8, 8)
    maps[0, 2, 2], maps[0, 6, 6] = -10.0, 1.0
    mask = threshold_mask(maps, (8, 8), 0.3, pool=False)
    assert mask.sum() == 1 and mask[0, 2, 2]


def test_a_cell_that_is_half_covered_is_inside() -> None:
    region = torch.tensor([[[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]])
    assert resize_region(region, (1, 2)).tolist() == [[[True, False]]]


def test_masks_unite_prompts_and_subtract_words() -> None:
    maps = torch.zeros(2, 64, 3)
    maps[0, 0, 0] = maps[1, 63, 1] = maps[1, 36, 2] = 1.0
    store = MapStore((8, 8), 1, 1)
    store.add(0, maps)
    reader = RegionReader(store, source=[0], edited=[1], size=(8, 8))
    both = LocalBlend(WordRegion((0,), (1, 2)), NOTHING, 0.3, 0.0)
    mask = reader.mask(both)[0]
    assert mask[0, 0] and mask[7, 7] and mask[4, 4] and not mask[0, 7]
    less = LocalBlend(WordRegion((0,), (1, 2)), WordRegion((), (2,)), 0.3, 0.0)
    assert not reader.mask(less)[0][4, 4]
    assert reader.mask(less)[0][3, 3], "subtracted words are not pooled"


def test_a_region_by_hand_stands_alone_or_intersects() -> None:
    maps = torch.ones(2, 64, 1)
    store = MapStore((8, 8), 1, 1)
    store.add(0, maps)
    reader = RegionReader(store, [0], [1], (8, 8))
    region = torch.zeros(1, 32, 32)
    region[:, :16] = 1
    alone = reader.mask(LocalBlend(NOTHING, NOTHING, 0.3, 0.0, region))[0]
    assert alone[:4].all() and not alone[4:].any()
    within = reader.mask(LocalBlend(WordRegion((0,), ()), NOTHING, 0.3, 0.0, region))[0]
    torch.testing.assert_close(within, alone)
    assert resize_region(region, (5, 5))[0, :2].all()


def test_blend_keeps_the_source_bit_for_bit() -> None:
    x, source = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 1, 1] = True
    out = blend(x, source, mask)
    assert torch.equal(out[..., 0, :], source[..., 0, :])
    assert torch.equal(out[..., 1, 1], x[..., 1, 1])


def test_blending_starts_with_its_share_of_the_steps() -> None:
    late = LocalBlend(NOTHING, NOTHING, 0.3, 0.2)
    assert [late.active(step, 20) for step in (0, 3, 4, 19)] == [False, False, True, True]


def test_heat_goes_from_black_to_white() -> None:
    torch.testing.assert_close(heat(torch.tensor([0.0, 1.0])), torch.tensor([[0.0] * 3, [1.0] * 3]))
    assert normalised(torch.zeros(1, 2, 2)).isfinite().all()
