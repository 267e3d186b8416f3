"""IP2PConditioning with LoRAs, regions and ControlNets, against the host's three-way guidance."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from comfy.cldm.cldm import ControlNet as ControlNetModel
from comfy.controlnet import ControlNet
from host_run import Link, run
from scenes import distance
from tiny_instruct import InstructScene, instruct_scene, latents, pictures, shared_instruct
from tiny_model import UNET, randomize

pytestmark = pytest.mark.usefixtures("host")
Confine = Callable[[InstructScene, Link], Link]


def test_loras() -> None:
    model = shared_instruct().clone()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
    weight = model.model.state_dict()[key]
    model.add_patches({key: ("diff", (torch.randn_like(weight) * 0.3,))}, 1.0)
    s, plain = instruct_scene(model=model), instruct_scene()
    ours, theirs = run(s.scene.graph, s.sample(), s.dual())
    assert distance(ours["samples"], theirs["samples"]) < 1e-5
    assert distance(ours["samples"], latents(plain, plain.sample())) > 1e-3


def beside_nothing(s: InstructScene, region: Link, link: Link) -> Link:
    """A region together with an empty text for the whole picture."""
    rest = s.scene.graph.add("ConditioningZeroOut", conditioning=link)
    return s.scene.graph.add("ConditioningCombine", conditioning_1=region, conditioning_2=rest)


def area(s: InstructScene, link: Link) -> Link:
    where = {"width": 64, "height": 64, "x": 0, "y": 32, "strength": 0.8}
    region = s.scene.graph.add("ConditioningSetArea", conditioning=link, **where)
    return beside_nothing(s, region, link)


def mask(s: InstructScene, link: Link) -> Link:
    left = torch.zeros(1, 96, 64)
    left[..., :40] = 1
    region = s.scene.graph.add(
        "ConditioningSetMask", conditioning=link, mask=s.scene.graph.value(left), strength=0.7,
        set_cond_area="default",
    )  # fmt: skip
    return beside_nothing(s, region, link)


def first_steps(s: InstructScene, link: Link) -> Link:
    half = {"start": 0.0, "end": 0.5}
    region = s.scene.graph.add("ConditioningSetTimestepRange", conditioning=link, **half)
    return beside_nothing(s, region, link)


@pytest.mark.parametrize("confine", [area, mask, first_steps])
@pytest.mark.parametrize("both", [True, False], ids=["both", "positive alone"])
def test_confined_conditionings(confine: Confine, both: bool) -> None:
    """Of the positive alone, and of positive and negative; uncond then follows the negative."""
    s = instruct_scene()
    positive = confine(s, s.node[1])
    negative = confine(s, s.node[2]) if both else s.node[2]
    uncond = confine(s, s.node[3]) if both else s.node[3]
    ours, theirs, plain = run(
        s.scene.graph,
        s.sample(positive=positive, negative=negative),
        s.dual(cond1=positive, cond2=negative, negative=uncond),
        s.sample(),
    )
    assert distance(ours["samples"], theirs["samples"]) < 1e-5
    assert distance(ours["samples"], plain["samples"]) > 1e-4


def test_controlnets() -> None:
    device = torch.device("cpu")
    config = {key: value for key, value in UNET.items() if key != "out_channels"}
    model = ControlNetModel(hint_channels=3, device=device, **config)
    randomize(model, 6, {"zero_convs": 0.3})
    control = ControlNet(model, load_device=device)
    s = instruct_scene()

    def controlled(*conditionings: Link) -> list[Link]:
        hint = s.scene.graph.value(pictures(seed=8))
        node = s.scene.graph.add(
            "ControlNetApplyAdvanced", positive=conditionings[0], negative=conditionings[1],
            control_net=s.scene.graph.value(control), image=hint, strength=0.6,
            start_percent=0.0, end_percent=1.0,
        )  # fmt: skip
        return [node[0], node[1]]

    positive, negative = controlled(s.node[1], s.node[2])
    uncond, _ = controlled(s.node[3], s.node[3])
    ours, theirs, plain = run(
        s.scene.graph,
        s.sample(positive=positive, negative=negative),
        s.dual(cond1=positive, cond2=negative, negative=uncond),
        s.sample(),
    )
    assert distance(ours["samples"], theirs["samples"]) < 1e-5
    assert distance(ours["samples"], plain["samples"]) > 1e-3
