"""Nothing inside a network's call makes the host wait for its device, or asks it for a shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from families import refiners, streams
from families.edits import ADDED, EQUAL, LONGER, Case, How, edited, latent_of, model_of
from families.tiny import Family
from host_run import run
from scenes import Edit, Scene, Settings, scene
from tiny_model import shared_unet
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.usefixtures("host", "models")
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique")


class Watch(TorchDispatchMode):
    """Notes the operations that would wait for a device, from within the network."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        booleans = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        )
        if name in WAITING or booleans:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(network: Any) -> Iterator[list[list[str]]]:
    """For every call of a network, what waited in it."""
    calls: list[list[str]] = []
    forward = network.forward

    def watching(*args: Any, **kwargs: Any) -> Any:
        with Watch() as watch:
            out = forward(*args, **kwargs)
        calls.append(watch.found)
        return out

    network.forward = watching
    try:
        yield calls
    finally:
        del network.forward


def test_it_is_seen() -> None:
    with Watch() as watch:
        x = torch.arange(3.0)
        float(x[0])
        x[x > 1] = 0
        x[x > 1].nonzero()
    assert watch.found == ["_local_scalar_dense", "index_put_", "index", "nonzero"]


@pytest.mark.parametrize("mode", ["qk", "hybrid"])
@pytest.mark.parametrize(
    "family", [streams.QWEN_IMAGE, streams.FLUX_DEV, refiners.Z_IMAGE], ids=lambda f: f.name
)
def test_transformers(family: Family, mode: str) -> None:
    """From the second step on: what a step asks for is prepared where a window opens or closes."""
    targets = ((EQUAL, "swap", 1.0), (LONGER, "swap", 1.0), (ADDED, "refine", 0.0))
    cases = [Case(text, mode, kind, 1.0, self_) for text, kind, self_ in targets]
    edited(family, cases, How(steps=1))  # finds the layouts
    with watched(model_of(family).model.diffusion_model) as calls:
        edited(family, cases, How(steps=4))
    assert len(calls) >= 8 and not any(calls[len(calls) // 4 :]), calls


@pytest.mark.parametrize("acts_on", ["values", "scores"])
@pytest.mark.parametrize("name", ["Qwen-Image", "Z-Image", "UNet"])
def test_words_with_weights(name: str, acts_on: str) -> None:
    from random_graphs.transformers import KINDS, loaded

    s = scene(Settings(steps=4, width=64, height=64))
    if name != "UNet":
        model, clip = loaded(name)
        latent = s.graph.value({"samples": latent_of(KINDS[name].family, 1)})
        s = Scene(
            s.graph, s.graph.value(model), s.graph.value(clip), s.negative, latent, s.settings
        )
        s.negative = s.text("blurry")
    weighed = s.graph.add(
        "P2PPromptWeights", model=s.model, clip=s.clip, text="a (red:2) (cat:-1) on a bench",
        acts_on=acts_on,
    )  # fmt: skip
    link = s.sample(weighed, weighed[1], s.latent)
    network = run(s.graph, s.model).model.diffusion_model
    run(s.graph, link)
    with watched(network) as calls:
        run(s.graph, link)
    assert len(calls) >= 4 and not any(calls[len(calls) // 4 :]), calls


def test_unets() -> None:
    s = scene(Settings(steps=4, width=64, height=64))
    edit = Edit("swap", "a photo of a blue dog on a bench", cross=1.0, self_=1.0).build(
        s.graph, s.clip
    )
    words = {"source_words": "cat", "target_words": "dog"}
    control = s.control(edit=s.graph.add("P2PLocalBlendMask", edit=edit, **words))
    with watched(shared_unet().model.diffusion_model) as calls:
        run(s.graph, s.sample(control, control[1], control[2]))
    assert len(calls) == 4 and not any(calls[1:]), calls
