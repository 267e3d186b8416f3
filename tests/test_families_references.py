"""Edits with pictures beside the latent: references (Kontext, Qwen-Image-Edit, …) and Flux Fill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from families import invented, refiners, streams
from families.edits import CASES, SOURCE, SWAP, Case, How, check_exact, plain
from families.tiny import Family
from families.watching import ask, pack
from host_run import Graph, Link
from scenes import distance
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host", "models")
SIZES = ((8, 12), (20, 10))  # the latent's own, and one larger than a trial looks at
KINDS = [streams.FLUX_DEV, streams.QWEN_IMAGE, streams.KLEIN, streams.LONGCAT, refiners.OMNIGEN2]


def pictures(family: Any, sizes: Any = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(11)
    shape = (family.channels, 1) if getattr(family, "frames", False) else (family.channels,)
    return [torch.randn(1, *shape, *size, generator=generator) for size in sizes]


def with_references(family: Any, sizes: Any = SIZES) -> How:
    def cond(graph: Graph, positive: Link) -> Link:
        for picture in pictures(family, sizes):
            latent = graph.value({"samples": picture})
            positive = graph.add("ReferenceLatent", conditioning=positive, latent=latent)
        return positive

    patch = 1 if family is streams.KLEIN else 2
    return How(cond=cond, beside=sum(h // patch * (w // patch) for h, w in sizes))


@pytest.mark.parametrize("case", [SWAP, CASES[3]], ids=lambda case: f"{case.mode} {case.target}")
@pytest.mark.parametrize("family", KINDS, ids=lambda family: family.name)
def test_edits_with_references(family: Family, case: Case) -> None:
    if family is streams.KLEIN and case is not SWAP:
        pytest.skip("padded to 512 columns, so that no two prompts differ in length")
    how = with_references(family)
    check_exact(family, case, how)
    assert distance(plain(family, SOURCE, how), plain(family, SOURCE)) > 1e-4


@pytest.mark.parametrize("case", [SWAP, CASES[2]], ids=lambda case: case.kind)
def test_edits_of_an_invented_network_with_references_before_the_image(case: Case) -> None:
    network: Any = type("References", (invented.References,), {"channels": invented.CHANNELS})
    check_exact(network, case, with_references(network))


def fill(tokens: int, generator: torch.Generator) -> dict[str, Any]:
    latent = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(1, 1, 64, 96)
    mask[..., 16:48, 24:72] = 1
    given = streams.pooled_guidance(tokens, generator)
    return {**given, "concat_latent_image": latent, "concat_mask": mask}


def test_edits_of_flux_fill() -> None:
    family = replace(streams.FLUX_FILL, extras=fill)
    check_exact(family, SWAP)
    assert distance(plain(family, SOURCE), plain(streams.FLUX_FILL, SOURCE)) > 1e-3


def test_a_trial_with_large_references_costs_less_than_a_step() -> None:
    """Positions that go through the network, of a trial and of a step with source and edit."""
    family, seen = streams.QWEN_IMAGE, []
    model = family.load()
    block = model.model.diffusion_model.transformer_blocks[0]
    hook = block.img_mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2]))
    text, extras = family.conditioning(100)[0]
    positive = [[text, {**extras, "reference_latents": pictures(family, [(64, 64)] * 2)}]]
    latent = family.latent(64, 64, batch=2)
    try:
        layout = ask(model, positive, latent, pack("nodes.host.families.layouts").layout_of)
    finally:
        hook.remove()
    *trial, step = (rows * positions for rows, positions in seen)
    texts = 100 * (len(trial) + 2)  # rows: the self-check has three
    assert sum(trial) + texts < step
    call = layout.calls[0]
    assert [(run.role, run.length) for run in call.keys[1:]] == [(-1, 4), (-3, 2 * 32 * 32)]
    assert len(layout.keys(call, 100 + 3 * 1024, (64, 64)).image) == 1024


def test_references_of_an_unexpected_number_of_positions_are_tried_whole() -> None:
    """A network that halves its references' rows: not as many positions as patches."""

    class Halved(invented.References):
        def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
            return super().join(image, text, [one[:, ::2] for one in references])

    network: Any = type("References", (Halved,), {"channels": invented.CHANNELS})
    check_exact(network, SWAP, replace(with_references(network, ((20, 10),)), beside=25))
