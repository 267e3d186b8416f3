"""Edits on transformers under a ControlNet, which reads the prompts too."""

from __future__ import annotations

import pytest
import torch
from families import streams
from families.control import SIZES, hinted, steered
from families.edits import (
    LONGER,
    SEED,
    SOURCE,
    STEPS,
    SWAP,
    Case,
    How,
    check_exact,
    controlled,
    edited,
    encoded,
    latent_of,
    model_of,
    plain,
    sampled,
)
from families.tiny import Family
from host_run import Graph, Link, run
from scenes import distance
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host", "models")
UNEQUAL = Case(LONGER, "hybrid")


@pytest.mark.parametrize("case", [SWAP, UNEQUAL], ids=lambda case: case.target)
@pytest.mark.parametrize("family", SIZES, ids=lambda family: family.name)
def test_edits_under_a_control_net(family: Family, case: Case) -> None:
    """Every row's ControlNet reads that row's prompt, as in a run of the prompt alone."""
    how = How(cond=steered(family))
    check_exact(family, case, how)
    assert distance(plain(family, SOURCE, how), plain(family, SOURCE)) > 1e-3


def test_a_control_net_for_a_part_of_the_steps() -> None:
    family = streams.FLUX_DEV
    how = How(cond=steered(family, end=0.4))
    check_exact(family, UNEQUAL, how)
    whole = plain(family, SOURCE, How(cond=steered(family)))
    assert distance(plain(family, SOURCE, how), whole) > 1e-3


@pytest.mark.parametrize("negative", ["blurry", "a red cat on a blur"])
def test_a_negative_under_the_same_control_net(negative: str) -> None:
    """In one batch with the source where it is as long, and in one of its own otherwise."""
    family = streams.QWEN_IMAGE

    def both(graph: Graph, model: Link, positive: Link, latent: Link) -> Tensor:
        text = graph.value(encoded(family, negative))
        under = hinted(graph, family, positive, text)
        samples = graph.add(
            "KSampler", model=model, positive=under, negative=under[1], latent_image=latent,
            seed=SEED, steps=STEPS, cfg=3.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        )  # fmt: skip
        return run(graph, samples)["samples"]

    graph, free = Graph(), Case(LONGER, "hybrid", cross=0.0, self_=0.0)
    latent = graph.value({"samples": latent_of(family, 1)})
    control = controlled(graph, family, [SWAP, free], How(), latent)
    rows = both(graph, control, control[1], control[2])
    model = graph.value(model_of(family))
    for row, prompt in ((rows[:1], SOURCE), (rows[2:], LONGER)):
        alone = both(graph, model, graph.value(encoded(family, prompt)), latent)
        assert distance(row, alone) < 1e-5


def test_every_picture_has_its_own_hint() -> None:
    """Source and edit of a seed see the same one; the ControlNet is left as it was."""
    family = streams.FLUX_DEV
    how = How(cond=steered(family, hints=2), seeds=2)
    rows, alone = edited(family, [UNEQUAL], how), plain(family, SOURCE, how)
    free = edited(family, [Case(LONGER, "hybrid", cross=0.0, self_=0.0)], how)
    assert distance(rows[::2], alone) < 1e-5
    assert distance(free[1::2], plain(family, LONGER, how)) < 1e-5
    assert distance(rows[1::2], free[1::2]) > 1e-3
    graph = Graph()
    latent = graph.value({"samples": latent_of(family, 2)})
    control = controlled(graph, family, [UNEQUAL], how, latent)
    positive = how.cond(graph, control[1])
    samples = sampled(graph, family, How(seeds=2), control, positive, control[2])
    again, [[_, extras]] = run(graph, samples, positive)
    assert torch.equal(again["samples"], rows)
    assert type(extras["control"]).__name__ == "ControlNet"
    assert len(extras["control"].cond_hint_original) == 2
