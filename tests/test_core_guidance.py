"""Two-scale guidance as pure maths, against equation 3 written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from p2p_core.guidance import cfg_pair, cfg_pp_pair, checked_image_cfg

SCALES = [0.0, 0.5, 1.0, 1.01, 1.5, 2.5, 7.5, 30.0]


def predictions(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """e(∅, ∅), e(I, ∅), e(I, T): (2, 4, 8, 8)."""
    generator = torch.Generator().manual_seed(0)
    uncond, image, text = torch.randn(3, 2, 4, 8, 8, generator=generator, dtype=dtype)
    return uncond, image, text


def equation_3(
    uncond: Tensor, image: Tensor, text: Tensor, image_cfg: float, text_cfg: float
) -> Tensor:
    return uncond + image_cfg * (image - uncond) + text_cfg * (text - image)


def ordinary(cond: Tensor, uncond: Tensor, cfg: float) -> Tensor:
    return uncond + cfg * (cond - uncond)


@pytest.mark.parametrize("image_cfg", SCALES)
@pytest.mark.parametrize("text_cfg", SCALES)
def test_ordinary_guidance_of_the_pair_is_equation_3(image_cfg: float, text_cfg: float) -> None:
    uncond, image, text = predictions()
    expected = equation_3(uncond, image, text, image_cfg, text_cfg)
    pair = cfg_pair(uncond, image, text, image_cfg, text_cfg)
    torch.testing.assert_close(ordinary(*pair, text_cfg), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("image_cfg", SCALES)
@pytest.mark.parametrize("text_cfg", [scale for scale in SCALES if scale])
def test_so_it_is_with_the_models_own_uncond(image_cfg: float, text_cfg: float) -> None:
    uncond, image, text = predictions()
    expected = equation_3(uncond, image, text, image_cfg, text_cfg)
    cond, own = cfg_pp_pair(uncond, image, text, image_cfg, text_cfg)
    assert own is uncond
    torch.testing.assert_close(ordinary(cond, own, text_cfg), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text_cfg", SCALES)
def test_single_precision_is_enough_everywhere(text_cfg: float) -> None:
    exact = predictions()
    for image_cfg in SCALES:
        pair = cfg_pair(*(part.float() for part in exact), image_cfg, text_cfg)
        expected = equation_3(*exact, image_cfg, text_cfg)
        error = (ordinary(*pair, text_cfg).double() - expected).norm() / expected.norm()
        assert error < 1e-6


@pytest.mark.parametrize("text_cfg", SCALES)
def test_without_image_guidance_the_pair_is_the_predictions_themselves(text_cfg: float) -> None:
    uncond, image, text = predictions()
    pair = cfg_pair(uncond, image, text, 1.0, text_cfg)
    assert pair[0] is text
    assert pair[1] is image


def test_the_instructions_prediction_stays_and_uncond_lies_between_the_other_two() -> None:
    uncond, image, text = predictions()
    cond, mixed = cfg_pair(uncond, image, text, 1.5, 7.5)
    assert cond is text
    torch.testing.assert_close(mixed, image + 0.5 / 6.5 * (uncond - image))
    torch.testing.assert_close(cfg_pair(uncond, image, text, 3.0, 3.0)[1], uncond)


def test_noise_velocity_and_denoised_latents_give_the_same() -> None:
    """x0 = x - sigma * eps turns a pair of noises into the pair of denoised latents."""
    noises, x, sigma = predictions(), torch.randn(2, 4, 8, 8, dtype=torch.float64), 3.0
    for scales in ((1.5, 7.5), (4.0, 1.2), (1.5, 1.0)):
        from_noise = [x - sigma * part for part in cfg_pair(*noises, *scales)]
        from_denoised = cfg_pair(*(x - sigma * part for part in noises), *scales)
        for a, b in zip(from_noise, from_denoised, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value", [0.0, 1, 1.5, 100.0])
def test_scales_from_0_upwards(value: float) -> None:
    assert checked_image_cfg(value) == value


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_other_scales_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="image_cfg must be a number from 0 upwards, got"):
        checked_image_cfg(value)
