"""Wrong models, pictures and wires of IP2PConditioning: one sentence tells what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.samplers
import pytest
import torch
from host_run import GraphError, Link, host_nodes, load_pack, run
from tiny_instruct import (
    INSTRUCTION,
    SHORT,
    AveragingVAE,
    InstructScene,
    instruct_scene,
    pictures,
)
from tiny_model import TinySD15, shared_unet, tiny_unet

pytestmark = pytest.mark.usefixtures("host")
QUICK = SHORT.but(steps=2)
TEXTS = [[torch.zeros(3, 77, 64), {}]]

INPUTS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a text-to-image model": (
        lambda: {"model": shared_unet()},
        "8 input channels, but this one is BaseModel with 4. Load.*instruct-pix2pix-00-22000",
    ),
    "another model of 8 channels": (
        lambda: {"model": tiny_unet(TinySD15, in_channels=8)},
        "InstructPix2Pix model with 8 input channels, but this one is BaseModel with 8",
    ),
    "image_cfg below 0": (lambda: {"image_cfg": -0.5}, "image_cfg.*-0.5"),
    "no number": (lambda: {"image_cfg": float("nan")}, "image_cfg.*nan"),
    "alpha": (
        lambda: {"image": torch.rand(1, 64, 64, 4)},
        "alpha channel.*SplitImageWithAlpha",
    ),
    "a mask": (lambda: {"image": torch.rand(1, 64, 64)}, r"RGB pictures.*\(1, 64, 64\)"),
    "no picture": (lambda: {"image": torch.rand(0, 64, 64, 3)}, r"RGB pictures.*\(0, 64, 64, 3\)"),
    "too small": (lambda: {"image": pictures(1, 64, 7)}, "7x64 pixels.*at least 8x8"),
    "pictures and prompts": (
        lambda: {"image": pictures(2), "positive": TEXTS},
        "they differ: image 2, positive 3, negative 1.*the same number",
    ),
    "pictures and negatives": (
        lambda: {"image": pictures(2), "negative": TEXTS},
        "they differ: image 2, positive 1, negative 3",
    ),
    "no instruction": (lambda: {"positive": []}, "positive is an empty conditioning.*instruction"),
    "no negative": (lambda: {"negative": []}, "negative is an empty conditioning.*empty text"),
    "another VAE": (lambda: {"vae": AveragingVAE(16)}, "VAE makes latents.*16.*needs 4 channels"),
    "another fit": (lambda: {"fit": "stretch"}, "fit.*stretch"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str) -> None:
    inputs, message = INPUTS[name]
    s = instruct_scene(QUICK, **inputs())
    with pytest.raises(GraphError, match=message):
        run(s.scene.graph, s.node)


def another(s: InstructScene) -> Link:
    """A second node, which follows the picture more closely."""
    return s.scene.graph.add("IP2PConditioning", **{**s.inputs, "image_cfg": 2.0})


def empty(s: InstructScene, rows: int, height: int = 12) -> Link:
    return s.scene.graph.value({"samples": torch.zeros(rows, 4, height, 8)})


def combined(s: InstructScene) -> Link:
    return s.scene.graph.add(
        "ConditioningCombine", conditioning_1=s.node[1], conditioning_2=s.scene.text("snow")
    )


def basic(s: InstructScene) -> Link:
    return s.guided(s.scene.graph.add("BasicGuider", model=s.node, conditioning=s.node[1]))


class Subtracting(comfy.samplers.CFGGuider):
    """A pack's guider that goes its own way."""

    def predict_noise(self, x: Any, timestep: Any, model_options: Any = None, seed: Any = None):
        conds = [self.conds[name] for name in ("positive", "negative")]
        options = model_options or {}
        cond, uncond = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, options)
        return 2 * cond - uncond


def own_way(s: InstructScene) -> Link:
    model, positive, negative = run(s.scene.graph, *(s.node[i] for i in range(3)))
    guider = Subtracting(model)
    guider.set_conds(positive, negative)
    return s.guided(s.scene.graph.value(guider))


@pytest.fixture(scope="module", autouse=True)
def perp_neg_node(host: None) -> None:
    load_pack(Path(host_nodes.__file__).parent / "comfy_extras" / "nodes_perpneg.py", "extras")


def perp_neg(s: InstructScene) -> Link:
    guider = s.scene.graph.add(
        "PerpNegGuider", model=s.node, positive=s.node[1], negative=s.node[2],
        empty_conditioning=s.node[2], cfg=4.0, neg_scale=1.0,
    )  # fmt: skip
    return s.guided(guider)


WIRINGS: dict[str, tuple[Callable[[InstructScene], Link], str]] = {
    "positive of an encoder": (
        lambda s: s.sample(positive=s.scene.text(INSTRUCTION)),
        "sampler's positive.*comes from no IP2PConditioning.*Wire the positive output",
    ),
    "the checkpoint's own model": (
        lambda s: s.sample(model=s.inputs["model"]),
        "positive comes from IP2PConditioning, but its model.*no IP2PConditioning.*Wire the model",
    ),
    "negative of an encoder": (
        lambda s: s.sample(negative=s.scene.negative),
        "sampler's negative.*comes from no IP2PConditioning.*Wire the negative output",
    ),
    "positive combined afterwards": (
        lambda s: s.sample(positive=combined(s)),
        "positive, or a part of it.*combine or change prompts before that node",
    ),
    "positive of another node": (
        lambda s: s.sample(positive=another(s)[1]),
        "sampler's positive.*comes from another IP2PConditioning",
    ),
    "swapped": (
        lambda s: s.sample(positive=s.node[2], negative=s.node[1]),
        "IP2PConditioning's negative is wired to the sampler's positive. Wire its positive",
    ),
    "uncond as negative": (
        lambda s: s.sample(negative=s.node[3]),
        "uncond is wired to the sampler's negative. Wire its negative.*DualCFGGuider only",
    ),
    "latent of another size": (
        lambda s: s.sample(latent_image=empty(s, 1, 8)),
        "latent is 64x64 pixels, but the picture to edit was encoded at 64x96.*latent output",
    ),
    "latent of other rows": (
        lambda s: s.sample(latent_image=empty(s, 3)),
        r"latent holds 3 rows, but IP2PConditioning got 2 picture\(s\).*RepeatImageBatch",
    ),
    "dual guider in another order": (
        lambda s: s.dual(model=s.node, cond2=s.node[3], negative=s.node[2]),
        "uncond is wired to the cond2 of DualCFGGuider.*negative to cond2 and uncond to negative",
    ),
    "guider without negative": (basic, "image_cfg cannot act.*Guider_Basic.*KSampler or CFGGuider"),
    "guider of three": (perp_neg, "image_cfg cannot act.*PerpNeg.*or set image_cfg to 1"),
    "guider of its own": (own_way, "image_cfg cannot act.*Subtracting"),
}


@pytest.mark.parametrize("name", WIRINGS)
def test_wiring(name: str) -> None:
    wire, message = WIRINGS[name]
    s = instruct_scene(QUICK, image=pictures(2))
    with pytest.raises(GraphError, match=message):
        run(s.scene.graph, wire(s))


@pytest.mark.parametrize("wire", [basic, own_way])
def test_such_guiders_work_without_image_guidance(wire: Callable[[InstructScene], Link]) -> None:
    s = instruct_scene(QUICK, image_cfg=1.0)
    assert run(s.scene.graph, wire(s))["samples"].isfinite().all()
