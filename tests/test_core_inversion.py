"""The inverted path as pure maths."""

from __future__ import annotations

import pytest
import torch

from p2p_core.inversion import Inversion, ddim_step, noise_offsets

SIGMAS = [8.0, 3.0, 1.0, 0.0]


def inversion() -> Inversion:
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(4, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    offsets = torch.tensor(SIGMAS).reshape(-1, 1, 1, 1, 1) * noise
    return Inversion(clean, clean + offsets[0], torch.tensor(SIGMAS), offsets, "ddim")


@pytest.mark.parametrize("index", range(len(SIGMAS)))
def test_at_its_own_levels_the_path_is_what_is_stored(index: int) -> None:
    path = inversion()
    torch.testing.assert_close(path.offset_at(SIGMAS[index]), path.offsets[index])


@pytest.mark.parametrize("sigma", [7.9, 5.0, 3.01, 2.0, 0.5])
def test_between_levels_it_is_on_the_ddim_step_from_one_to_the_next(sigma: float) -> None:
    """A step of DDIM to the next level, cut short: from x in the direction that leads there."""
    path = inversion()
    at = max(i for i, level in enumerate(SIGMAS) if level > sigma)
    high, low = SIGMAS[at], SIGMAS[at + 1]
    x, there = (path.latent + path.offsets[i] for i in (at, at + 1))
    denoised = x - high * (x - there) / (high - low)
    torch.testing.assert_close(ddim_step(x, denoised, high, low), there)
    expected = ddim_step(x, denoised, high, sigma)
    torch.testing.assert_close(path.latent + path.offset_at(sigma), expected)


@pytest.mark.parametrize("sigma", [100.0, 8.0])
def test_above_the_noisiest_level_it_stays_there(sigma: float) -> None:
    path = inversion()
    assert torch.equal(path.offset_at(sigma), path.offsets[0])


def test_under_one_fixed_noise_it_is_that_noise_at_every_level() -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    path = Inversion(noise, noise, torch.tensor(SIGMAS), noise_offsets(noise, SIGMAS), "noise")
    torch.testing.assert_close(path.offset_at(2.5), 2.5 * noise)


@pytest.mark.parametrize(
    ("sigmas", "first"),
    [
        (SIGMAS, 0),
        ([3.0, 1.0, 0.0], 1),
        ([8.0, 3.0], 0),
        ([3.0, 1.0], 1),
        ([8.0, 1.0, 0.0], None),
        ([8.0, 3.1, 1.0, 0.0], None),
        ([9.0, *SIGMAS], None),
    ],
)
def test_which_runs_fit(sigmas: list[float], first: int | None) -> None:
    assert inversion().find(sigmas) == first
