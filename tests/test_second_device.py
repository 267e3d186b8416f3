"""Tensors that live elsewhere than on the CPU, as under --gpu-only: `meta` stands in for a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_run import host_nodes, run
from scenes import Edit, Settings, scene

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=2, width=64, height=64)


def call(name: str, **inputs: Any) -> tuple:
    return host_nodes.NODE_CLASS_MAPPINGS[name].execute(**inputs).args


def test_a_latent_elsewhere_is_inverted_there() -> None:
    latent = {"samples": torch.zeros(2, 4, 8, 8, device="meta")}
    inversion, start, _ = call("P2PNoiseInvert", latent=latent, seed=1, steps=4, scheduler="normal")
    assert inversion.offsets.is_meta and inversion.latent.is_meta and start["samples"].is_meta


@pytest.mark.parametrize("words", ["cat, dog", "photo"])
def test_heat_maps_over_an_image_elsewhere(words: str) -> None:
    s = scene(SHORT)
    control = s.control(Edit("swap", "a photo of a blue dog on a bench"))
    record, samples = run(s.graph, control[3], s.sample(control, control[1], control[2]))
    image = torch.zeros(2, 64, 64, 3, device="meta")
    sheets, mask, _ = call(
        "P2PAttentionMaps", record=record, samples=samples, words=words, image=image
    )
    assert sheets.is_meta and mask.isfinite().all()


def test_a_latent_elsewhere_is_repeated_there() -> None:
    s = scene(SHORT)
    edit = run(s.graph, Edit("swap", "a photo of a blue dog on a bench").build(s.graph, s.clip))
    latent = {"samples": torch.zeros(1, 4, 8, 8, device="meta")}
    latent["noise_mask"] = torch.ones(1, 1, 64, 64, device="meta")
    model = run(s.graph, s.model)
    rows = call("P2PAttentionController", model=model, latent=latent, edit=edit)[2]
    assert rows["samples"].is_meta and len(rows["samples"]) == 2


def test_a_mask_elsewhere_meets_words_here() -> None:
    """The region's mask and the words' maps are on two devices."""
    from p2p_core.local_blend import LocalBlend, RegionReader, WordRegion
    from p2p_core.maps import MapStore

    store = MapStore((8, 8), 1, 1)
    store.add(0, torch.ones(2, 64, 3, device="meta"))
    reader = RegionReader(store, [0], [1], (8, 8))
    words = WordRegion((0,), (1,))
    for region in (None, torch.ones(1, 8, 8)):
        assert reader.mask(LocalBlend(words, words, 0.3, 0.0, region)).is_meta
