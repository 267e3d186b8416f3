"""The embedded demo model: a tiny text-to-image model that the host loads like any checkpoint.

The host finds out what a checkpoint is by its list of supported models. `register` appends
one entry for our weights file; the file also carries a private key, so that nothing else
matches the entry. How the model was made is told in `demo_model/README.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / "demo_model"
WEIGHTS_PATH = FOLDER / "p2p_demo.safetensors"
INSTRUCT_PATH = FOLDER / "p2p_demo_instruct.safetensors"
MARKER_KEY = "p2p_demo.version"
INSTRUCT_KEY = "p2p_demo_instruct.version"

CONTEXT_DIM = 64
MODEL_CHANNELS = 64
HEAD_SETTINGS = {"num_heads": -1, "num_head_channels": 32}
TEXT_CONFIG = {
    "hidden_size": CONTEXT_DIM,
    "intermediate_size": 4 * CONTEXT_DIM,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "eos_token_id": 49407,
    "vocab_size": 49408,
}

EMBEDDING_KEY = "clip_l.transformer.text_model.embeddings.token_embedding"
TAESD_CHANNELS = 64  # the host's fixed width; ours is narrower


class DemoLatents(comfy.latent_formats.LatentFormat):
    """Latents as they leave the autoencoder: eight channels, each near unit variance.

    The preview factors are a least-squares fit of colours to latents.
    """

    scale_factor = 1.0
    latent_channels = 8
    latent_rgb_factors = [
        [0.462, 0.025, -0.041],
        [0.077, 0.408, 0.086],
        [0.005, 0.11, 0.459],
        [-0.109, -0.006, -0.038],
        [-0.002, -0.075, 0.022],
        [-0.017, -0.045, 0.016],
        [0.016, 0.032, -0.027],
        [0.056, -0.048, -0.011],
    ]
    latent_rgb_factors_bias = [0.252, 0.21, 0.173]


def expand_vocabulary(rows: Tensor, token_ids: Tensor) -> Tensor:
    """Stored embedding rows to the tokenizer's whole vocabulary.

    rows: (n + 1, C), the last for every token that training never saw; token_ids: (n,).
    Returns (vocabulary, C).
    """
    table = rows[-1:].repeat(TEXT_CONFIG["vocab_size"], 1)
    table[token_ids.long()] = rows[:-1]
    return table


def pad_channels(weight: Tensor, latent_channels: int) -> Tensor:
    """A narrow autoencoder's weight padded with zeros to the host's width; ReLU(0) = 0.

    weight: (C_out, C_in, 3, 3) or (C_out,), features wider than the latent. Pictures and latents
    keep their channels.
    """
    if weight.ndim == 0:
        return weight
    sizes = [
        size if axis > 1 or size <= latent_channels else TAESD_CHANNELS
        for axis, size in enumerate(weight.shape)
    ]
    padded = weight.new_zeros(sizes)
    padded[tuple(slice(size) for size in weight.shape)] = weight
    return padded


class DemoClipModel(comfy.sd1_clip.SDClipModel):
    """The host's CLIP text model with one narrow layer."""

    def __init__(
        self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None
    ) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(TEXT_CONFIG),
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class DemoTextEncoder(comfy.sd1_clip.SD1ClipModel):
    """What the host's CLIP object holds for this model."""

    def __init__(
        self,
        device: Any = "cpu",
        dtype: Any = None,
        model_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            clip_model=DemoClipModel,  # pyright: ignore[reportArgumentType]
            **kwargs,
        )


class DemoTokenizer(comfy.sd1_clip.SD1Tokenizer):
    """Stable Diffusion 1's tokenizer; textual inversions need this model's width."""

    def __init__(
        self, embedding_directory: Any = None, tokenizer_data: dict[str, Any] | None = None
    ) -> None:
        super().__init__(
            embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {}
        )
        getattr(self, self.clip).embedding_size = CONTEXT_DIM


class P2PDemo(comfy.supported_models.SD15):
    """The host's description of the model: Stable Diffusion 1's layout, much smaller."""

    unet_config = {
        "in_channels": DemoLatents.latent_channels,
        "context_dim": CONTEXT_DIM,
        "model_channels": MODEL_CHANNELS,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
    }
    unet_extra_config = HEAD_SETTINGS
    required_keys = {MARKER_KEY: None}
    latent_format = DemoLatents

    def inpaint_model(self) -> bool:
        """No: the host takes more than four input channels for an inpainting model's."""
        return False

    def process_clip_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename as for Stable Diffusion 1, then expand the vocabulary; {} where none is."""
        state_dict = super().process_clip_state_dict(state_dict)
        if not state_dict:
            return {}
        rows = state_dict.pop(f"{EMBEDDING_KEY}.rows")
        token_ids = state_dict.pop(f"{EMBEDDING_KEY}.token_ids")
        state_dict[f"{EMBEDDING_KEY}.weight"] = expand_vocabulary(rows, token_ids)
        # Not stored: the identity, so that the pooled output is defined.
        state_dict["clip_l.transformer.text_projection.weight"] = torch.eye(CONTEXT_DIM)
        return state_dict

    def process_vae_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pad the autoencoder to the host's width."""
        channels = self.latent_format.latent_channels
        return {name: pad_channels(weight, channels) for name, weight in state_dict.items()}

    def clip_target(
        self, state_dict: dict[str, Tensor] | None = None
    ) -> comfy.supported_models_base.ClipTarget:
        """Tokenizer and text encoder classes."""
        return comfy.supported_models_base.ClipTarget(DemoTokenizer, DemoTextEncoder)


class P2PDemoInstruct(P2PDemo):
    """The variant that follows instructions: InstructPix2Pix in miniature."""

    unet_config = {**P2PDemo.unet_config, "in_channels": 2 * DemoLatents.latent_channels}
    required_keys = {INSTRUCT_KEY: None}

    def get_model(
        self, state_dict: dict[str, Tensor], prefix: str = "", device: Any = None
    ) -> comfy.model_base.BaseModel:
        """The host's own InstructPix2Pix class."""
        return comfy.model_base.SD15_instructpix2pix(self, device=device)


def register() -> None:
    """Tell the host about the models; a second call, or a reload of the pack, changes nothing."""
    known = {model.__name__ for model in comfy.supported_models.models}
    for model in (P2PDemo, P2PDemoInstruct):
        if model.__name__ not in known:
            comfy.supported_models.models.append(model)


class Variant(NamedTuple):
    """A weights file of this pack, and the host's description that it must match."""

    path: Path
    config: type[P2PDemo]


TEXT_TO_IMAGE, INSTRUCTIONS = "text to image", "instructions"
VARIANTS = {
    TEXT_TO_IMAGE: Variant(WEIGHTS_PATH, P2PDemo),
    INSTRUCTIONS: Variant(INSTRUCT_PATH, P2PDemoInstruct),
}


def load_parts(path: Path, variant: str) -> tuple[Any, Any, Any]:
    """(MODEL, CLIP, VAE); text encoder and autoencoder serve both variants and are stored once."""
    load = comfy.sd.load_checkpoint_guess_config
    if variant == TEXT_TO_IMAGE:
        return load(str(path))[:3]
    model = load(str(path), output_vae=False, output_clip=False)[0]
    _, clip, vae, *_ = load(str(WEIGHTS_PATH), output_model=False)
    return model, clip, vae


def load_demo_model(
    path: Path | None = None, *, variant: str = TEXT_TO_IMAGE
) -> tuple[Any, Any, Any]:
    """A variant of the demo model as the host's (MODEL, CLIP, VAE); path: other weights of it.

    Raises FileNotFoundError when the weights are missing and ValueError when they are damaged.
    """
    register()
    expected = VARIANTS[variant]
    path = path or expected.path
    if not path.is_file():
        raise FileNotFoundError(
            f"The demo model's weights {path.name} are missing from {path.parent}; "
            "install the node pack again."
        )
    try:
        model, clip, vae = load_parts(path, variant)
    except Exception as error:
        raise ValueError(
            f"The demo model's weights {path} cannot be read ({error}); "
            "install the node pack again."
        ) from error
    # By name: after a reload of the pack the host still holds the first reading of this file.
    if model is None or type(model.model.model_config).__name__ != expected.config.__name__:
        raise ValueError(
            f"{path} is not the demo model's weights file; install the node pack again."
        )
    return model, clip, vae


register()
