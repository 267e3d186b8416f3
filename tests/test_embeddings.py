"""Embeddings for scores: the host's loaders of CLIP Vision, CLIP and DINO, beside transformers."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from host_run import host_nodes
from safetensors.torch import load_file
from tiny_checkpoints import checkpoint, load
from tiny_clips import DINO, IMAGE_SIZE, TEXT, VISION, image_encoder, text_encoder, text_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

pytestmark = pytest.mark.usefixtures("host")
CAPTIONS = ["a photo of a red cat", "a photo of a (blue:1.4) dog on a bench"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WIDTH = VISION["projection_dim"]


@pytest.fixture(scope="module")
def embeddings(host: None) -> ModuleType:
    pack = host_nodes.NODE_CLASS_MAPPINGS["P2PEdit"].__module__.rpartition(".")[0]
    return importlib.import_module(f"{pack}.host.embeddings")


def pictures(count: int, size: int = IMAGE_SIZE) -> torch.Tensor:
    whole = torch.randint(0, 256, (count, size, size, 3), generator=torch.manual_seed(1))
    return whole / 255


def test_image_embeddings_are_transformers(embeddings: ModuleType, tmp_path: Path) -> None:
    ours = embeddings.image_embeddings(image_encoder(tmp_path), pictures(20))
    oracle = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).eval()
    oracle.load_state_dict(load_file(tmp_path / "clip_vision_model_2.safetensors"), strict=False)
    pixels = ((pictures(20) - torch.tensor(MEAN)) / torch.tensor(STD)).movedim(-1, 1)
    with torch.no_grad():
        expected = oracle(pixel_values=pixels).image_embeds
    assert ours.shape == (20, WIDTH)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
    wide = pictures(1, 40)[:, 6:34]
    middle = wide[:, :, 6:34]
    encoder = image_encoder(tmp_path)
    assert torch.equal(*(embeddings.image_embeddings(encoder, p) for p in (wide, middle)))


def test_text_embeddings_are_transformers(embeddings: ModuleType, tmp_path: Path) -> None:
    clip = text_encoder(tmp_path)
    ours = embeddings.text_embeddings(clip, CAPTIONS, WIDTH)
    config = CLIPTextConfig(**TEXT, vocab_size=49408, eos_token_id=49407, projection_dim=WIDTH)
    oracle = CLIPTextModelWithProjection(config).eval()
    oracle.load_state_dict(load_file(text_file(tmp_path)), strict=False)
    for caption, embedding in zip(CAPTIONS, ours, strict=True):
        [chunk] = clip.tokenize(caption)["l"]
        with torch.no_grad():
            expected = oracle(input_ids=torch.tensor([[token for token, *_ in chunk]]))
        torch.testing.assert_close(embedding, expected.text_embeds[0], rtol=1e-3, atol=1e-3)


def test_the_prompt_s_conditioning_stays_what_it_was(embeddings: ModuleType, tmp_path: Path):
    clip = text_encoder(tmp_path)
    before = clip.encode_from_tokens(clip.tokenize(CAPTIONS[0]), return_pooled=True)
    embeddings.text_embeddings(clip, CAPTIONS, WIDTH)
    assert not clip.cond_stage_model.clip_l.return_projected_pooled
    after = clip.encode_from_tokens(clip.tokenize(CAPTIONS[0]), return_pooled=True)
    assert all(map(torch.equal, before, after))


def test_a_text_encoder_without_its_projection(embeddings: ModuleType, tmp_path: Path) -> None:
    clip = text_encoder(tmp_path, projection=False)
    with pytest.raises(ValueError, match="CLIP-L came without its text projection.*CLIPLoader"):
        embeddings.text_embeddings(clip, CAPTIONS, WIDTH)
    whole = text_encoder(tmp_path)
    with torch.no_grad():  # the file has one, which was not read
        whole.cond_stage_model.clip_l.transformer.text_projection.weight.mul_(2)
    with pytest.raises(ValueError, match="CLIP-L came without its text projection"):
        embeddings.text_embeddings(whole, CAPTIONS, WIDTH)
    clip.patcher.cached_patcher_init = None
    with pytest.raises(ValueError, match="is not known, since the node that loaded it"):
        embeddings.text_embeddings(clip, CAPTIONS, WIDTH)


def test_the_encoder_of_that_width_is_taken(embeddings: ModuleType) -> None:
    """SDXL's second one, which the host itself reads with its projection."""
    _, clip = load("sdxl", checkpoint("sdxl"))
    ours = embeddings.text_embeddings(clip, CAPTIONS[:1], 96)
    _, pooled = clip.encode_from_tokens(clip.tokenize(CAPTIONS[0]), return_pooled=True)
    torch.testing.assert_close(ours, pooled.float())
    with pytest.raises(ValueError, match="width 768, but .* CLIP-L of width 64, OpenCLIP-G of"):
        embeddings.text_embeddings(clip, CAPTIONS, 768)


def test_another_image_encoder(embeddings: ModuleType, tmp_path: Path) -> None:
    dino = image_encoder(tmp_path, **DINO)
    with pytest.raises(ValueError, match="clip_vision is a dinov2"):
        embeddings.image_embeddings(dino, pictures(1))
    with pytest.raises(ValueError, match="dino is a clip vision model"):
        embeddings.structure_keys(image_encoder(tmp_path), pictures(1))


def test_keys_of_the_last_layer(embeddings: ModuleType, tmp_path: Path) -> None:
    dino = image_encoder(tmp_path, **DINO)
    keys = embeddings.structure_keys(dino, pictures(2, size=42))
    assert keys.shape == (2, 1 + (DINO["image_size"] // 14) ** 2, DINO["hidden_size"])
    layer = dino.model.encoder.layer[-1]
    assert not layer.attention.attention.key._forward_hooks
    seen = []
    layer.norm1.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    with torch.no_grad():
        dino.encode_image(pictures(2, size=42)[1:], crop=False)
    torch.testing.assert_close(keys[1:], layer.attention.attention.key(seen[0]).float())
