"""Wrong wires, and models that the nodes do not edit: one sentence tells what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
import comfy.sd
import comfy.sd1_clip
import comfy.text_encoders.sd2_clip
import pytest
from comfy.supported_models_base import ClipTarget
from host_run import GraphError, Link, run
from scenes import SOURCE, Edit, Scene, Settings, controlled, scene
from tiny_model import TEXT_ENCODER, tiny_unet

pytestmark = pytest.mark.usefixtures("host")
SWAP = Edit("swap", "a photo of a blue dog on a bench")
REFINE = Edit("refine", SWAP.target)
TINY = Settings(steps=2, width=64, height=64)

Wiring = Callable[[Scene, Link], Link]
WIRINGS: dict[str, tuple[Wiring, str]] = {
    "latent before the controller": (
        lambda s, control: s.sample(control, control[1], s.latent),
        "latent batch of 1.*needs 2 rows.*AttentionController's latent output",
    ),
    "another latent of enough rows": (
        lambda s, control: s.sample(
            control, control[1], s.graph.add("RepeatLatentBatch", samples=s.latent, amount=2)
        ),
        "different noise.*AttentionController's latent output",
    ),
    "positive of an ordinary encoder": (
        lambda s, control: s.sample(control, s.text(SWAP.target), control[2]),
        "positive does not come from the AttentionController.*controller's positive output",
    ),
    "positive of another controller": (
        lambda s, control: s.sample(control, s.control(REFINE)[1], control[2]),
        "positive does not come from the AttentionController that made its model",
    ),
    "positive wired to negative": (
        lambda s, control: s.sample(control, control[1], control[2], negative=control[1]),
        "positive is wired to the sampler's negative.*CLIPTextEncode to negative",
    ),
    "two controllers on one model": (
        lambda s, control: s.control(SWAP, model=control),
        "already comes from an AttentionController.*edit_2",
    ),
    "scale without an edit": (
        lambda s, control: s.graph.add("P2PReweight", words="a", scale=2.0),
        "needs an edit, or a clip and a prompt, but got neither",
    ),
    "scale with both": (
        lambda s, control: s.graph.add(
            "P2PReweight", words="a", scale=2.0, clip=s.clip, prompt=SOURCE,
            edit=SWAP.build(s.graph, s.clip),
        ),
        "needs an edit, or a clip and a prompt, but got both",
    ),
    "noise that differs between rows": (
        lambda s, control: s.graph.add(
            "SamplerCustom", model=control, add_noise=True, noise_seed=1, cfg=2.0,
            positive=control[1], negative=s.negative, latent_image=control[2],
            sampler=s.graph.value(comfy.samplers.ksampler("euler", {"s_churn": 1.0})),
            sigmas=s.graph.add(
                "BasicScheduler", model=s.model, scheduler="normal", steps=2, denoise=1.0
            ),
        ),
        "s_churn.*Set s_churn to 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WIRINGS)
def test_wiring(name: str) -> None:
    wire, message = WIRINGS[name]
    s = scene(TINY)
    with pytest.raises(GraphError, match=message):
        run(s.graph, wire(s, s.control(SWAP)))


NO_TEXT = {
    "context_dim": None, "use_spatial_transformer": False, "transformer_depth": [0] * 4,
    "transformer_depth_output": [0] * 8, "transformer_depth_middle": -1, "num_head_channels": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (NO_TEXT, "edits SD1, SD2 and SDXL.*no text cross-attention.*Load a text-to-image"),
        ({"context_dim": 32}, "reads text of width 32.*CLIP writes width 64.*Use the CLIP"),
    ],
    ids=["no text", "another encoder"],
)
def test_models(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        controlled([SWAP], TINY, model=tiny_unet(**changes))


def test_the_text_encoder_of_another_family() -> None:
    target = ClipTarget(comfy.text_encoders.sd2_clip.SD2Tokenizer, comfy.sd1_clip.SD1ClipModel)
    options = {"clip_l_model_config": TEXT_ENCODER}
    s = scene(TINY, clip=comfy.sd.CLIP(target, model_options=options))
    with pytest.raises(GraphError, match="CLIP of an SD1, SD2 or SDXL checkpoint.*text encoders h"):
        run(s.graph, SWAP.build(s.graph, s.clip))
