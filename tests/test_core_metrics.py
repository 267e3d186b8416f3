"""Metrics of an edit, beside torchmetrics' and by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image.lpips import _LPIPS

from p2p_core.metrics import (
    caption_similarity,
    checked_mask,
    directional_similarity,
    image_similarity,
    mask_for,
    psnr,
    ssim,
)
from p2p_core.perceptual import lpips
from p2p_core.structure import plain_structure_distance, self_similarity, structure_distance


def pictures(*size: int, seed: int = 0) -> Tensor:
    """Smooth random pictures (B, H, W, 3)."""
    noise = torch.rand(size[0], 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=size[1:], mode="bicubic").clamp(0, 1).movedim(1, -1)


def noisy(picture: Tensor, amount: float = 0.1, seed: int = 1) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))
    return (picture + amount * noise).clamp(0, 1)


def half(height: int, width: int) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, :, : width // 2] = 1
    return mask


def test_directional_similarity_by_hand() -> None:
    east, north = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    west = -east
    assert directional_similarity(east, north, east, north) == pytest.approx(1)
    assert directional_similarity(east, north, north, east) == pytest.approx(-1)
    # From east to north is (-1, 1), from east to west (-2, 0): 45 degrees apart.
    assert directional_similarity(east, north, east, west) == pytest.approx(0.5**0.5)
    assert directional_similarity(east, east, east, north) == 0
    assert image_similarity(east, 2 * north + 3 * east) == pytest.approx(0.5**0.5)
    assert caption_similarity(east.half(), west) == pytest.approx(-1)


def test_psnr_and_ssim_are_torchmetrics() -> None:
    ours = pictures(3, 40, 56)
    theirs = noisy(ours)
    nchw = ours.movedim(-1, 1), theirs.movedim(-1, 1)
    options = {"data_range": 1.0, "reduction": "none"}
    expected = peak_signal_noise_ratio(*nchw, **options, dim=(1, 2, 3))
    torch.testing.assert_close(psnr(ours, theirs), expected)
    expected = structural_similarity_index_measure(*nchw, **options)
    torch.testing.assert_close(ssim(ours, theirs), expected, rtol=1e-4, atol=1e-5)
    assert (psnr(ours, ours) == float("inf")).all()
    torch.testing.assert_close(ssim(ours, ours), torch.ones(3))


def test_a_mask_counts_its_own_region_alone() -> None:
    source, mask = pictures(1, 40, 60), half(40, 60)
    edit = noisy(source)
    elsewhere = torch.where(mask[..., None] > 0, edit, torch.rand_like(edit))
    for measure in (psnr, ssim):
        torch.testing.assert_close(measure(source, edit, mask), measure(source, elsewhere, mask))
        torch.testing.assert_close(
            measure(source, edit), measure(source, edit, torch.ones(1, 40, 60))
        )
    cut = source[:, :, :30], edit[:, :, :30]
    torch.testing.assert_close(psnr(source, edit, mask), psnr(*cut))
    kept = torch.where(mask[..., None] > 0, source, edit)
    assert psnr(source, kept, mask) == float("inf") and psnr(source, kept, 1 - mask) < 30


def test_blackening_reads_higher_by_the_region_s_share() -> None:
    """The convention of PIE-Bench, as the docstring states it."""
    source, mask = pictures(1, 40, 60), half(40, 60)
    edit, shown = noisy(source), mask[..., None]
    share = mask.mean()
    expected = psnr(source, edit, mask) - 10 * torch.log10(share)
    torch.testing.assert_close(psnr(source * shown, edit * shown), expected)


def test_structure_by_hand() -> None:
    keys = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]])
    expected = torch.tensor([[[1.0, 0, 1], [0, 1, 0], [1, 0, 1]]])
    torch.testing.assert_close(self_similarity(keys), expected)
    assert structure_distance(keys, keys * 7) == 0
    other = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    assert structure_distance(keys, other) == pytest.approx(4 / 9)


def test_plain_structure_tells_layout_from_colour() -> None:
    source = pictures(1, 96, 128)
    assert plain_structure_distance(source, source) == 0
    recoloured = plain_structure_distance(source, source.flip(-1) * 0.8 + 0.1)
    moved = plain_structure_distance(source, source.flip(2))
    another = plain_structure_distance(source, pictures(1, 96, 128, seed=5))
    assert recoloured < 0.5 * min(moved, another)


def test_plain_structure_tells_how_edges_run() -> None:
    stripes = (torch.arange(64) % 8 < 4).float()[None, :, None].expand(64, 64, 3)[None]
    turned = torch.cat([stripes[:, :32], stripes.transpose(1, 2)[:, 32:]], dim=1)
    assert plain_structure_distance(stripes, turned) > 0.1
    assert plain_structure_distance(turned, 1 - turned) < 1e-6


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_lpips_is_torchmetrics(net: str) -> None:
    torch.manual_seed(0)
    oracle = _LPIPS(net=net, pnet_rand=True).eval()
    source = pictures(2, 64, 64)
    edit = noisy(source)
    weights = [layer.model[-1].weight.flatten() for layer in oracle.lins]
    nchw = source.movedim(-1, 1), edit.movedim(-1, 1)
    with torch.no_grad():
        expected = oracle(*nchw, normalize=True).flatten()
        ours = lpips(lambda x: oracle.net(x), weights, source, edit)
        nothing = lpips(lambda x: oracle.net(x), weights, source, source)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)
    assert not nothing.any()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(1, 8, 8), "mask is empty"),
        (torch.full((8, 8), float("nan")), "not numbers"),
        (torch.ones(1, 2, 3, 8, 8), "must have the shape"),
    ],
)
def test_bad_masks(mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_mask(mask)


def test_masks_fit_the_pictures() -> None:
    mask = mask_for(checked_mask(half(8, 8)[0]), torch.zeros(2, 16, 24, 3))
    torch.testing.assert_close(mask, half(16, 24))
    with pytest.raises(ValueError, match="one for each of the 2 pictures, but has 3"):
        mask_for(torch.ones(3, 8, 8), torch.zeros(2, 8, 8, 3))


def test_too_small_for_ssim() -> None:
    with pytest.raises(ValueError, match="windows of 11x11 pixels.*are 10x32"):
        ssim(torch.zeros(1, 32, 10, 3), torch.zeros(1, 32, 10, 3))
