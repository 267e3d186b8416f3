"""The nodes against Prompt-to-Prompt written with explicit maps: latents after whole runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import comfy.samplers
import pytest
import torch
from host_run import run
from oracle import oracle
from scenes import SOURCE, Edit, Settings, controlled, distance, plain, scene
from tiny_model import TinySD15V, shared_clip, shared_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
TOLERANCE = 1e-4

SWAP = Edit("swap", "a photo of a blue dog on a bench")
SWAP_MORE_WORDS = Edit("swap", "a photo of a big turquoise lasagne on a bench at night")
SWAP_FEWER_WORDS = Edit("swap", "a photo of a dog on a bench", cross=0.5, self_=0.2)
REFINE = Edit("refine", "a photo of a fluffy red cat asleep on a bench", cross=0.6)
REFINE_LESS = Edit("refine", "a watercolor of a cat on a bench", cross=1.0, self_=0.7)
REWEIGHT = Edit("reweight", scales=(("red, bench", -2.0),))
CHAIN = Edit("swap", SWAP.target, scales=(("dog", 3.0), ("blue\nbench", -1.5)))
CHAIN_TWICE = Edit("refine", REFINE.target, scales=(("fluffy", 2.0), ("fluffy, asleep", 2.5)))
WINDOWS = Edit("swap", SWAP.target, cross=0.3, self_=0.0, word_windows="dog: 0.25-0.7\na: 0-1")
ONE_WORD = Edit("swap", SWAP.target, cross=0.0, self_=0.0, word_windows="dog: 0-0.85")

EULER, HEUN = Settings("euler"), Settings("heun", "karras")
MULTISTEP = Settings("dpmpp_2m", "karras")
CASES = {
    "replace": ([SWAP], EULER),
    "replace by more words": ([SWAP_MORE_WORDS], MULTISTEP.but(seed=8)),
    "replace by fewer words": ([SWAP_FEWER_WORDS], HEUN),
    "refine": ([REFINE], HEUN),
    "refine, two seeds": ([REFINE_LESS], EULER.but(batch=2)),
    "reweight": ([REWEIGHT], MULTISTEP),
    "chain": ([CHAIN], EULER.but(cfg=7.5)),
    "chain on refine, two edits": ([CHAIN_TWICE, SWAP], MULTISTEP),
    "word windows": ([WINDOWS], EULER),
    "one word's window, two seeds": ([ONE_WORD], MULTISTEP.but(batch=2)),
    "three edits, two seeds": ([SWAP, REFINE, REWEIGHT], EULER.but(batch=2)),
    "no guidance": ([SWAP], EULER.but(cfg=1.0)),
    "part of the noise": ([SWAP], EULER.but(denoise=0.7)),
    "not square": ([REFINE], EULER.but(width=88, height=136, steps=10)),
    "layers too large for self-attention": ([SWAP], EULER.but(width=320, height=272, steps=3)),
}


@pytest.mark.parametrize("name", CASES)
def test_latents_equal_the_explicit_maps(name: str) -> None:
    edits, settings = CASES[name]
    expected = oracle(shared_unet(), shared_clip(), edits, settings)
    assert_edits_show(expected, edits, settings)
    assert_rows_close(controlled(edits, settings), expected)


def test_v_prediction() -> None:
    model = shared_unet(TinySD15V)
    expected = oracle(model, shared_clip(), [SWAP], EULER)
    assert_rows_close(controlled([SWAP], EULER, model=model), expected)


@dataclass
class GroupNoise:
    """A noise sampler that gives all rows of a seed the same noise."""

    batch: int
    rows: int
    seed: int = 3

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        noise = torch.randn(self.batch, 4, 16, 16, generator=self.generator)
        return noise.repeat_interleave(self.rows, dim=0)


def controlled_with_noise(edits: list[Edit], settings: Settings, noise_sampler: Callable) -> Tensor:
    s = scene(settings)
    control = s.control(*edits)
    sampler = comfy.samplers.ksampler(settings.sampler_name, {"noise_sampler": noise_sampler})
    sigmas = s.graph.add(
        "BasicScheduler", model=s.model, scheduler=settings.scheduler, steps=settings.steps,
        denoise=1.0,
    )  # fmt: skip
    samples = s.graph.add(
        "SamplerCustom", model=control, add_noise=True, noise_seed=settings.seed,
        cfg=settings.cfg, positive=control[1], negative=s.negative, latent_image=control[2],
        sampler=s.graph.value(sampler), sigmas=sigmas,
    )  # fmt: skip
    return run(s.graph, samples)["samples"]


@pytest.mark.parametrize(
    ("edits", "batch"),
    [([CHAIN, REFINE], 2), ([SWAP_MORE_WORDS], 1), ([REWEIGHT, WINDOWS, REFINE], 1)],
    ids=["two edits, two seeds", "more words", "three edits"],
)
def test_euler_ancestral(edits: list[Edit], batch: int) -> None:
    settings = Settings("euler_ancestral", batch=batch)
    rows = 1 + len(edits)
    expected = oracle(shared_unet(), shared_clip(), edits, settings, GroupNoise(batch, rows))
    found = controlled_with_noise(edits, settings, GroupNoise(batch, rows))
    assert_rows_close(found, expected)


@pytest.mark.parametrize(
    "mistaken",
    [
        Edit("swap", CHAIN.target, cross=0.6, scales=CHAIN.scales),
        Edit("swap", CHAIN.target, self_=0.3, scales=CHAIN.scales),
        Edit("swap", CHAIN.target, scales=CHAIN.scales[:1]),
        Edit("refine", CHAIN.target, scales=CHAIN.scales),
    ],
    ids=["cross window", "self window", "scale", "mapper"],
)
def test_the_comparison_notices_mistakes(mistaken: Edit) -> None:
    found = controlled([CHAIN], EULER)
    assert distance(found[1], oracle(shared_unet(), shared_clip(), [mistaken], EULER)[1]) > 1e-3


def assert_rows_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    distances = [distance(a, b) for a, b in zip(found, expected, strict=True)]
    assert max(distances) <= TOLERANCE, distances


uncontrolled = cache(plain)


def assert_edits_show(latents: Tensor, edits: list[Edit], settings: Settings) -> None:
    """The edited rows are neither the source nor what the target prompt gives by itself."""
    for row, edit in enumerate(edits, start=1):
        free = uncontrolled(edit.target, settings.but(batch=1))
        own_scale = edit.kind == "reweight" and edit.target == SOURCE
        assert distance(latents[row], latents[0]) > 0.03
        assert own_scale or distance(latents[row], free[0]) > 0.03
