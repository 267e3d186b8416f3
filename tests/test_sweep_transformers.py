"""P2P Sweep on transformers: what the controller and a KSampler make, in every mode."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import pytest
import torch
from families import streams
from families.edits import (
    EQUAL,
    SEED,
    STEPS,
    Case,
    How,
    clip_of,
    edit_of,
    edited,
    encoded,
    latent_of,
    model_of,
)
from families.tiny import Family
from host_run import Graph, run

pytestmark = pytest.mark.usefixtures("host", "models")
CFG = 3.0


class Decoder:
    """Shows three of the latent's channels, small differences large, in time as videos are."""

    first_stage_model = torch.nn.Identity()

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        samples = samples.reshape(len(samples), samples.shape[1], *samples.shape[-2:])
        large = torch.nn.functional.interpolate(samples[:, :3], size=(16, 16))
        return (torch.sin(64 * large) / 2 + 0.5).movedim(1, -1)[:, None]


@pytest.mark.parametrize("mode", ["qk", "hybrid"])
@pytest.mark.parametrize(
    "family", [streams.QWEN_IMAGE, streams.KLEIN], ids=lambda family: family.name
)
def test_it_is_the_controller_s(
    family: Family, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    graph, shares = Graph(), (0.0, 1.0)
    node = graph.add(
        "P2PSweep", model=graph.value(model_of(family)), vae=graph.value(Decoder()), mode=mode,
        latent=graph.value({"samples": latent_of(family, 1)}), seed=SEED, steps=STEPS, cfg=CFG,
        edit=graph.value(edit_of(clip_of(family), Case(EQUAL, mode))), sampler_name="euler",
        negative=graph.value(encoded(family, "blurry")), scheduler="simple",
        cross_replace_steps="", self_replace_steps="0, 1",
    )  # fmt: skip
    pictures = run(graph, node[1])
    assert (pictures[0] - pictures[1]).abs().max() > 2 / 255
    for picture, share in zip(pictures, shares, strict=True):
        latents = edited(family, [Case(EQUAL, mode, self_=share)], How(cfg=CFG))
        expected = Decoder().decode(latents)[1, 0]
        assert (picture - expected).abs().max() <= 1.01 / 255
