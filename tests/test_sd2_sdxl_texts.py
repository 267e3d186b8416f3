"""Texts of SD2 and SDXL: words and columns, embeddings, sizes; and what is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from host_run import GraphError, run
from oracle import make_plan
from safetensors.torch import save_file
from scenes import SOURCE, Edit, Settings, controlled, distance, plain, scene
from tiny_checkpoints import UNET, checkpoint, load, shared
from tiny_model import shared_clip
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=5, width=64, height=96)
SWAP = Edit("swap", "a photo of a blue dog on a bench")

PAIRS = [
    ("a turquoise supercalifragilistic lasagne", "a red supercalifragilistic soup"),
    ("a (red:1.3) cat (on (a:0.5) mat)", "a blue [cat on] a (big mat:1.2)"),
    ("ein Größenvergleich 猫 🐱", "ein Vergleich 犬 🐶 قطة"),
]


@pytest.mark.parametrize("name", ["sd2", "sdxl", "refiner"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_mappers(name: str, source: str, target: str) -> None:
    _, clip = shared(name)
    edit = Edit("swap", target, source)
    s = scene(clip=clip)
    made = run(s.graph, edit.build(s.graph, s.clip)).prompt_edit
    expected = make_plan(clip, edit)
    torch.testing.assert_close(made.refine.float(), expected.refine)
    torch.testing.assert_close(
        (made.refine * made.mapper).float(), expected.refine * expected.mapper
    )


def vectors(count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(4)) * 3


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Textual inversions for one encoder, and for SDXL's two."""
    both = {"clip_l": vectors(3, 64), "clip_g": vectors(3, 96)}
    files = {
        "both": both,
        "uneven": {**both, "clip_g": vectors(2, 96)},
        "narrow": {"emb_params": vectors(3, 64)},
        "wide": {"emb_params": vectors(3, 96)},
    }
    for name, tensors in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return str(tmp_path)


def clip_with(name: str, folder: str) -> CLIP:
    return load(name, checkpoint(name), folder)[1]


def test_an_embedding_for_both_encoders(folder: str) -> None:
    model, clip = load("sdxl", checkpoint("sdxl"), folder)
    edit = Edit("swap", "a photo of a embedding:both dog on a bench", scales=(("dog", -2.0),))
    rows = controlled([edit], SHORT, model=model, clip=clip)
    assert distance(rows[0], plain(SOURCE, SHORT, model=model, clip=clip)[0]) <= 1e-4
    s = scene(clip=clip)
    made = run(s.graph, edit.build(s.graph, s.clip)).prompt_edit
    assert (made.equalizer == -2).nonzero().flatten().tolist() == [8]


@pytest.mark.parametrize(
    ("name", "embedding", "message"),
    [
        ("sd2", "wide", "(wide) of width 96, but this CLIP's OpenCLIP-H reads width 64"),
        ("sdxl", "wide", "(wide) of width 96, but this CLIP's CLIP-L reads width 64"),
        ("sdxl", "narrow", "(narrow) of width 64, but this CLIP's OpenCLIP-G reads width 96"),
        ("refiner", "narrow", "(narrow) of width 64, but this CLIP's OpenCLIP-G reads width 96"),
        ("sdxl", "uneven", "(uneven) that has another number of vectors for"),
    ],
)
def test_embeddings_that_an_encoder_would_drop(
    name: str, embedding: str, message: str, folder: str
) -> None:
    s = scene(clip=clip_with(name, folder))
    edit = Edit("swap", f"a photo of a (embedding:{embedding}:1.1) dog", source="a cat")
    with pytest.raises(GraphError, match=re.escape(message)):
        run(s.graph, edit.build(s.graph, s.clip))


def test_an_embedding_of_the_one_encoder_that_is_read(folder: str) -> None:
    """The refiner's tokeniser has CLIP-L's part, but nobody reads it."""
    s = scene(clip=clip_with("refiner", folder))
    edit = Edit("swap", "a embedding:wide dog", source="a cat", scales=(("dog", 2.0),))
    made = run(s.graph, edit.build(s.graph, s.clip)).prompt_edit
    assert (made.equalizer == 2).nonzero().flatten().tolist() == [5]


def model_of(kind: Any, **changes: Any) -> ModelPatcher:
    config = kind({**UNET, "num_res_blocks": [1] * 4, "channel_mult": [1, 2, 2, 2], **changes})
    config.unet_config.update(num_heads=4, num_head_channels=-1)
    made = config.get_model({}, device="cpu")
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(made, device, torch.device("cpu"))


ATTENTION = {
    "context_dim": 64,
    "transformer_depth": [1] * 4,
    "transformer_depth_output": [1] * 8,
    "transformer_depth_middle": 1,
}
VIDEO = {
    **ATTENTION, "num_classes": "sequential", "adm_in_channels": 768, "in_channels": 8,
    "use_temporal_attention": True, "use_temporal_resblock": True, "extra_ff_mix_layer": True,
    "video_kernel_size": [3, 1, 1], "merge_strategy": "learned_with_images",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (comfy.supported_models.SVD_img2vid, VIDEO, "SVD_img2vid.*frames of a video"),
        (
            comfy.supported_models.SD_X4Upscaler,
            {**ATTENTION, "in_channels": 7, "adm_in_channels": None},
            "SD_X4Upscaler.*class labels.*upscaler",
        ),
        (
            comfy.supported_models.SD15,
            {
                **ATTENTION,
                "adm_in_channels": None,
                "disable_self_attentions": [True, False, False, False],
            },
            "BaseModel.*without self-attention",
        ),
    ],
    ids=["video", "upscaler", "no self-attention"],
)
def test_models_that_are_refused(kind: Any, changes: dict, message: str) -> None:
    with pytest.raises(GraphError, match=f"edits SD1, SD2 and SDXL.*{message}"):
        controlled([SWAP], SHORT, model=model_of(kind, **changes), clip=shared_clip())


def test_a_text_encoder_of_another_family() -> None:
    (model, _), (_, clip) = shared("sdxl"), shared("sd2")
    with pytest.raises(GraphError, match="reads text of width 160.*CLIP writes width 64"):
        controlled([SWAP], SHORT, model=model, clip=clip)


SIZES = {
    "width": 1024, "height": 768, "crop_w": 100, "crop_h": 32,
    "target_width": 512, "target_height": 640,
}  # fmt: skip


@pytest.mark.parametrize("text_l", ["", "watercolor, soft light"])
def test_sizes_and_another_text_for_clip_l_as_the_host_encodes_them(text_l: str) -> None:
    model, clip = shared("ssd")
    tokens = clip.tokenize(SOURCE)
    if text_l:
        tokens["l"] = clip.tokenize(text_l)["l"]
    encoded = clip.encode_from_tokens_scheduled(tokens, add_dict=SIZES)
    s = scene(SHORT, model=model, clip=clip)
    like = s.graph.value(encoded)
    control = s.control(SWAP, extras_from=like, text_l=text_l)
    edited, alone = run(
        s.graph, s.sample(control, control[1], control[2]), s.sample(s.model, like, s.latent)
    )
    assert distance(edited["samples"][0], alone["samples"][0]) <= 1e-4
    assert distance(edited["samples"][1], edited["samples"][0]) > 1e-2
    assert distance(alone["samples"], plain(SOURCE, SHORT, model=model, clip=clip)) > 1e-3


@pytest.mark.parametrize(
    ("name", "text_l", "message"),
    [
        ("sd2", "oil", "text_l is for SDXL.*has one. Leave text_l empty"),
        ("refiner", "oil", "text_l is for SDXL"),
        ("ssd", "tree " * 80, "text_l fills 2 chunks.*only 1.*Shorten"),
    ],
)
def test_a_text_for_clip_l_that_cannot_be_read(name: str, text_l: str, message: str) -> None:
    model, clip = shared(name)
    s = scene(SHORT, model=model, clip=clip)
    with pytest.raises(GraphError, match=message):
        run(s.graph, s.control(SWAP, text_l=text_l))


def test_extras_of_several_conditionings() -> None:
    s = scene(SHORT)
    both = s.graph.add("ConditioningCombine", conditioning_1=s.text("a"), conditioning_2=s.negative)
    with pytest.raises(GraphError, match="extras_from must be one.*combined from 2"):
        run(s.graph, s.control(SWAP, extras_from=both))
