"""The demo model's UNet and text encoder, as built by the host's own classes for training."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from book.host import use_host

use_host()
import comfy.ops  # noqa: E402
from comfy.clip_model import CLIPTextModel  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.sd1_clip import SDTokenizer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 77
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def registration() -> ModuleType:
    """The pack's module that describes the model to the host; its sizes are used here."""
    path = ROOT / "nodes" / "host" / "demo_model.py"
    spec = importlib.util.spec_from_file_location("p2p_demo_registration", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONFIG = registration()


class GroupNormFunction(torch.autograd.Function):
    """Group normalisation of channels-last activations, many times faster on a CPU in bf16."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """x: (B, C, h, w); per sample and channel the result is x * scale + shift."""
        flat = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, hw, C)
        count = flat.shape[1] * flat.shape[2] // groups
        totals = torch.stack((flat.sum(1), (flat * flat).sum(1)), 0).float()
        mean, square = totals.unflatten(-1, (groups, -1)).sum(-1, keepdim=True) / count
        rstd = (square - mean * mean).clamp_min(0).add(eps).rsqrt()  # (B, G, 1)
        scale = rstd * weight.float().view(groups, -1)
        shift = (bias.float().view(groups, -1) - mean * scale).flatten(1)
        y = torch.addcmul(shift.to(x.dtype)[:, None], flat, scale.flatten(1).to(x.dtype)[:, None])
        ctx.save_for_backward(flat, weight, mean, rstd)
        return y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients for x, weight and bias."""
        flat, weight, mean, rstd = ctx.saved_tensors
        groups, count = mean.shape[1], flat.shape[1] * flat.shape[2] // mean.shape[1]
        dy = grad.permute(0, 2, 3, 1).flatten(1, 2)
        sums = torch.stack(((dy * flat).sum(1), dy.sum(1)), 0).float()
        by_x, plain = sums.unflatten(-1, (groups, -1))  # (B, G, C/G)
        gain = weight.float().view(groups, -1)
        ds, db = (by_x * gain).sum(-1, keepdim=True), (plain * gain).sum(-1, keepdim=True)
        on_x = (db * mean - ds) * rstd**3 / count
        constant = -on_x * mean - db * rstd / count
        a = (rstd * gain).flatten(1).to(flat.dtype)[:, None]
        b = on_x.expand_as(by_x).flatten(1).to(flat.dtype)[:, None]
        c = constant.expand_as(by_x).flatten(1).to(flat.dtype)[:, None]
        dx = torch.addcmul(torch.addcmul(c, flat, b), dy, a)
        dw = ((by_x - plain * mean) * rstd).sum(0).flatten().to(weight.dtype)
        h, w = grad.shape[2:]
        dx = dx.view(len(dx), h, w, -1).permute(0, 3, 1, 2)
        return dx, dw, plain.sum(0).flatten().to(weight.dtype), None, None


class FastGroupNorm(comfy.ops.disable_weight_init.GroupNorm):
    """The layer for `GroupNormFunction`."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, h, w)."""
        if x.is_cuda:
            return super().forward(x)
        return GroupNormFunction.apply(x, self.weight, self.bias, self.num_groups, self.eps)


class TrainingOps(comfy.ops.disable_weight_init):
    """The host's layers, with the normalisation above."""

    GroupNorm = FastGroupNorm


def build_unet(in_channels: int, out_channels: int) -> UNetModel:
    """4.2 M parameters; attention at 16×16 and 8×8 latent cells."""
    return UNetModel(
        image_size=32,
        in_channels=in_channels,
        out_channels=out_channels,
        model_channels=CONFIG.MODEL_CHANNELS,
        num_res_blocks=[1, 1],
        channel_mult=[1, 2],
        transformer_depth=[1, 1],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1, 1, 1],
        use_spatial_transformer=True,
        context_dim=CONFIG.CONTEXT_DIM,
        use_linear_in_transformer=False,
        legacy=False,
        operations=TrainingOps,
        **CONFIG.HEAD_SETTINGS,
    )


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """softmax(q kᵀ / sqrt(d) + mask) v with q (B, Q, H·d), k and v (B, T, H·d)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    return torch.matmul(scores.softmax(-1), v).transpose(1, 2).flatten(2)


def host_attention(_default: object, q: Tensor, k: Tensor, v: Tensor, heads: int, **_: object):
    """`explicit_attention` in the form of the host's attention override."""
    return explicit_attention(q, k, v, heads)


def predict_noise(unet: UNetModel, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
    """x: (B, C, h, w) of unit variance; timesteps: (B,); context: (B, 77, C)."""
    options = {"optimized_attention_override": host_attention}
    return unet(x, timesteps, context=context, transformer_options=options)


class Vocabulary:
    """Token rows for captions: the tokens of a word list, one row each, and one for the rest."""

    def __init__(self, words: Iterable[str]) -> None:
        tokenizer = SDTokenizer(embedding_size=CONFIG.CONTEXT_DIM).tokenizer
        self.start, self.end = tokenizer("")["input_ids"]
        self.word_ids = {word: tokenizer(word)["input_ids"][1:-1] for word in words}
        seen = sorted({self.start, self.end}.union(*self.word_ids.values()))
        self.token_ids = torch.tensor(seen, dtype=torch.int32)
        self.rows = {token: row for row, token in enumerate(seen)}

    def __len__(self) -> int:
        """Stored rows, the row for unknown tokens included."""
        return len(self.rows) + 1

    def encode(self, text: str) -> list[int]:
        """Row of each of the 77 tokens of a caption; the tokenizer splits at spaces first."""
        unknown = len(self.rows)
        words = [self.word_ids.get(word) for word in text.split()]
        rows = [self.rows[i] for ids in words for i in (ids or ())]
        if None in words:
            rows = [r for ids in words for r in ([self.rows[i] for i in ids] if ids else [unknown])]
        end = self.rows[self.end]
        return [self.rows[self.start], *rows, *[end] * (TOKENS - 1 - len(rows))]


class TextEncoder(nn.Module):
    """The host's CLIP text model with a short embedding table, safe for training."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        ops = comfy.ops.disable_weight_init
        self.transformer = CLIPTextModel(dict(CONFIG.TEXT_CONFIG), None, None, ops)
        self.transformer.text_model.embeddings.token_embedding = nn.Embedding(
            vocabulary_size, CONFIG.CONTEXT_DIM
        )
        mask = torch.full((TOKENS, TOKENS), float("-inf")).triu_(1)
        self.register_buffer("causal_mask", mask, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """rows: (B, 77) of the vocabulary; returns (B, 77, C). The host's layer adds in place."""
        model = self.transformer.text_model
        x = model.embeddings.token_embedding(rows) + model.embeddings.position_embedding.weight
        for layer in model.encoder.layers:
            normed = layer.layer_norm1(x)
            x = x + layer.self_attn(normed, self.causal_mask, explicit_attention)
            x = x + layer.mlp(layer.layer_norm2(x))
        return model.final_layer_norm(x)


@torch.no_grad()
def initialise(unet: UNetModel, text: TextEncoder) -> None:
    """All weights by hand: the host's layers come uninitialised; residual branches start at 0."""
    for module in (*unet.modules(), *text.modules()):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in unet.named_parameters():
        if name.startswith("out.2.") or ".out_layers.3." in name or ".proj_out." in name:
            nn.init.zeros_(parameter)
    embeddings = text.transformer.text_model.embeddings
    nn.init.normal_(embeddings.token_embedding.weight, std=1.0)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.1)
    nn.init.eye_(text.transformer.text_projection.weight)
    for layer in text.transformer.text_model.encoder.layers:
        for branch in (layer.self_attn.out_proj, layer.mlp.fc2):
            branch.weight.mul_(0.5)


def scaled_linear_alphas(steps: int = 1000) -> Tensor:
    """Cumulative alphas of Stable Diffusion's noise schedule: (steps,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def mix_padding(context: Tensor, empty: Tensor, rows: Tensor, end: int, chosen: Tensor) -> Tensor:
    """Give chosen samples the empty prompt's outputs at end-of-text and padding.

    context, empty: (B, 77, C), (1, 77, C); rows: (B, 77); chosen: (B,) bool. The words are
    then the only carriers of the caption, so the model learns to look at them.
    """
    replace = (rows == end) & chosen[:, None]
    return torch.where(replace[..., None], empty, context)
