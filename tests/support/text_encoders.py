"""Text encoders in miniature: the host's own classes and tokenisers, random weights."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest import mock

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.anima as anima
import comfy.text_encoders.boogu as boogu
import comfy.text_encoders.flux as flux
import comfy.text_encoders.hidream_o1 as hidream_o1
import comfy.text_encoders.hunyuan_image as hunyuan_image
import comfy.text_encoders.hunyuan_video as hunyuan_video
import comfy.text_encoders.ideogram4 as ideogram4
import comfy.text_encoders.joyimage as joyimage
import comfy.text_encoders.krea2 as krea2
import comfy.text_encoders.longcat_image as longcat_image
import comfy.text_encoders.lumina2 as lumina2
import comfy.text_encoders.mage_flow as mage_flow
import comfy.text_encoders.omnigen2 as omnigen2
import comfy.text_encoders.ovis as ovis
import comfy.text_encoders.pixart_t5 as pixart_t5
import comfy.text_encoders.qwen3vl as qwen3vl
import comfy.text_encoders.qwen_image as qwen_image
import comfy.text_encoders.qwen_vl as qwen_vl
import comfy.text_encoders.sd2_clip as sd2_clip
import comfy.text_encoders.sd3_clip as sd3_clip
import comfy.text_encoders.z_image as z_image
import sentencepiece
import torch
from comfy.sd import CLIP
from comfy.supported_models_base import ClipTarget
from newer_host import is_there, skip
from tiny_model import randomize
from transformers import Qwen2Tokenizer

ROWS = 2048  # of the embedding tables, which tokens share
SIZES = {
    "clip": {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4,
    },
    "t5": {
        "d_model": 64, "d_ff": 64, "d_kv": 16, "num_heads": 4, "num_layers": 2, "vocab_size": ROWS,
    },
    "llm": {
        "vocab_size": ROWS,
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 1, "num_key_value_heads": 1,
    },
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "depth": 1,
    "deepstack_visual_indexes": [0],
}  # fmt: skip
SMALL_VISION = {"hidden_size": 32, "intermediate_size": 16, "num_heads": 2, "num_layers": 1}
KINDS = {"clip_l": "clip", "clip_g": "clip", "clip_h": "clip", "t5xxl": "t5"}
# Of each: the host's encoder and tokeniser, and its parts with what is special about their sizes.
ENCODERS: dict[str, tuple[Callable, Callable, dict[str, dict]]] = {
    "SD1.5": (comfy.sd1_clip.SD1ClipModel, comfy.sd1_clip.SD1Tokenizer, {"clip_l": {}}),
    "SD2": (sd2_clip.SD2ClipModel, sd2_clip.SD2Tokenizer, {"clip_h": {}}),
    "SDXL": (
        comfy.sdxl_clip.SDXLClipModel, comfy.sdxl_clip.SDXLTokenizer, {"clip_l": {}, "clip_g": {}},
    ),
    "SD3": (
        sd3_clip.sd3_clip(), sd3_clip.SD3Tokenizer,
        {"clip_l": {}, "clip_g": {}, "t5xxl": {"d_model": 4096, "d_ff": 8, "num_layers": 1}},
    ),
    "Flux.1": (flux.flux_clip(), flux.FluxTokenizer, {"clip_l": {}, "t5xxl": {}}),
    "Chroma": (pixart_t5.pixart_te(), pixart_t5.PixArtTokenizer, {"t5xxl": {}}),
    "Klein": (flux.klein_te(), flux.KleinTokenizer, {"qwen3_4b": {"num_hidden_layers": 28}}),
    "Qwen-Image": (qwen_image.te(), qwen_image.QwenImageTokenizer, {"qwen25_7b": {}}),
    "Z-Image": (z_image.te(), z_image.ZImageTokenizer, {"qwen3_4b": {}}),
    "Krea 2": (krea2.te(), krea2.Krea2Tokenizer, {"qwen3vl_4b": {"num_hidden_layers": 36}}),
    "Ideogram 4": (
        ideogram4.te(), ideogram4.Ideogram4Tokenizer, {"qwen3vl_8b": {"num_hidden_layers": 36}},
    ),
    "Mage-Flow": (mage_flow.te(), mage_flow.MageFlowTokenizer, {"qwen3vl_4b": {}}),
    "JoyImage": (joyimage.te(), joyimage.JoyImageTokenizer, {"qwen3vl_8b": {}}),
    "Boogu": (boogu.te(), boogu.BooguTokenizer, {"qwen3vl_8b": {}}),
    "Anima": (anima.te(), anima.AnimaTokenizer, {"qwen3_06b": {}}),
    "LongCat": (longcat_image.te(), longcat_image.LongCatImageTokenizer, {"qwen25_7b": {}}),
    "OmniGen 2": (omnigen2.te(), omnigen2.Omnigen2Tokenizer, {"qwen25_3b": {}}),
    "Ovis": (ovis.te(), ovis.OvisTokenizer, {"qwen3_2b": {}}),
    "HunyuanImage": (
        hunyuan_image.te(byt5=False), hunyuan_image.HunyuanImageTokenizer, {"qwen25_7b": {}},
    ),
    "Lumina 2": (lumina2.te(), lumina2.LuminaTokenizer, {"gemma2_2b": {}}),
    "HiDream O1": (hidream_o1.HiDreamO1TE, hidream_o1.HiDreamO1Tokenizer, {}),
    "HunyuanVideo": (
        hunyuan_video.hunyuan_video_clip(), hunyuan_video.HunyuanVideoTokenizer,
        {"clip_l": {}, "llama": {}},
    ),
}  # fmt: skip


class SharedRows(torch.nn.Embedding):
    """An embedding table of few rows: tokens share them, so that a vocabulary costs little."""

    comfy_cast_weights = False  # the host asks for it where the table also writes text
    bias = None  # and for this where a model is patched

    def forward(self, input: torch.Tensor, out_dtype: torch.dtype | None = None) -> torch.Tensor:
        return super().forward(input % self.num_embeddings).to(out_dtype)


@cache
def encoder(family: str) -> CLIP:
    """The same CLIP for all tests of a process."""
    return make_encoder(family)


def make_encoder(family: str, seed: int = 2, embeddings: str | None = None, **widths: int) -> CLIP:
    """A CLIP with the host's classes of that family; `embeddings` is a folder.

    widths: of the parts, where they must fit a model: qwen3_4b=2560.
    """
    model, tokenizer, parts = ENCODERS[family]
    if not is_there(tokenizer):
        skip(f"text encoder of {family}")
    options: dict[str, Any] = {"dtype": torch.float32}
    for part, special in parts.items():
        kind = KINDS.get(part, "llm")
        config = {**SIZES[kind], **special}
        if part in widths:
            config["d_model" if kind == "t5" else "hidden_size"] = widths[part]
        options[f"{part}_model_config"] = config
    vision = qwen3vl.QWEN3VL_VISION if is_there(qwen3vl) else {}
    towers = {name: {**own, **VISION} for name, own in vision.items()}
    tower = qwen_vl.Qwen2VLVisionTransformer
    with (
        mock.patch.dict(vision, towers),
        mock.patch.object(
            qwen_vl, "Qwen2VLVisionTransformer", lambda **own: tower(**{**own, **SMALL_VISION})
        ),
        mock.patch.object(Qwen2Tokenizer, "from_pretrained", qwen_tokenizer),
    ):
        clip = CLIP(
            ClipTarget(tokenizer, model),
            embeddings,
            tokenizer_data=trained(),
            model_options=options,
        )
    for module in clip.cond_stage_model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Embedding) and child.num_embeddings >= ROWS:
                setattr(module, name, SharedRows(ROWS, child.embedding_dim))
    randomize(clip.cond_stage_model, seed, {"embed": 8.0, "shared": 8.0})
    return clip


LOAD_QWEN = Qwen2Tokenizer.from_pretrained


@cache
def qwen_tokenizer(path: str) -> Any:
    """Qwen's tokenizer, whose files take the longest to read, once a process."""
    tokenizer = LOAD_QWEN(path)
    tokenizer.get_vocab = cache(tokenizer.get_vocab)
    return tokenizer


@cache
def trained() -> dict[str, Any]:
    """Tokenisers that come with the weights of real encoders, made anew: what the host expects."""
    words = re.findall(
        "[a-z]+", "a the red blue green cat dog lasagne bench chair beside photo on hat"
    )
    text = [" ".join([*words[i:], *words[:i]]) for i in range(len(words))] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=400, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    spiece = torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)
    return {"spiece_model": spiece}
