"""Transformers that no code of the pack has heard of, as the network of a host's MODEL.

Each stands for a way to lay text and image out: two streams, one stream, image first, registers
before, cross-attention, references between, a refiner before; and for ways to hide attention.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import torch
from comfy.ldm.modules.attention import optimized_attention
from tiny_model import randomize
from torch import Tensor, nn

WIDTH, HEADS, TEXT, CHANNELS, PATCH = 48, 4, 40, 4, 2


class Attention(nn.Module):
    def __init__(self, context: int = WIDTH) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, WIDTH)
        self.k = nn.Linear(context, WIDTH)
        self.v = nn.Linear(context, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, context: Tensor, options: dict) -> Tensor:
        q, k, v = self.q(x), self.k(context), self.v(context)
        return self.out(optimized_attention(q, k, v, HEADS, transformer_options=options))


class Hidden(Attention):
    """Attention that asks nobody."""

    def forward(self, x: Tensor, context: Tensor, options: dict) -> Tensor:
        return super().forward(x, context, {})


class Block(nn.Module):
    def __init__(self, attention: type[Attention] = Attention) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = attention()
        self.feed = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())

    def forward(self, x: Tensor, options: dict) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, options)
        return x + self.feed(x)


class Invented(nn.Module):
    """Patches in, patches out; ``join`` lays the sequence out, ``mix`` is one layer of it."""

    layers = 3

    def __init__(self, device: Any = None, dtype: Any = None, **_: Any) -> None:
        super().__init__()
        self.dtype = dtype
        self.patches = nn.Linear(CHANNELS * PATCH * PATCH, WIDTH)
        self.words = nn.Linear(TEXT, WIDTH)
        self.time = nn.Linear(1, WIDTH)
        self.registers = nn.Parameter(torch.zeros(3, WIDTH))
        self.blocks = nn.ModuleList([self.block() for _ in range(self.layers)])
        self.last = nn.Linear(WIDTH, CHANNELS * PATCH * PATCH)

    def block(self) -> nn.Module:
        return Block()

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, transformer_options: dict,
        ref_latents: Any = None, control: Any = None, **_: Any,
    ) -> Tensor:  # fmt: skip
        transformer_options["written"] = transformer_options.get("written", 0) + 1
        rows, _, height, width = x.shape
        image, text = self.patches(patchify(x)), self.words(context)
        image = image + self.time(timesteps[:, None].to(x) / 1000)[:, None] + raster(image)
        references = [self.patches(patchify(one)) for one in ref_latents or []]
        image = self.stream(image, text, references, transformer_options)
        grid = self.last(image).unflatten(1, (-(-height // PATCH), -1))
        grid = grid.unflatten(-1, (CHANNELS, PATCH, PATCH)).permute(0, 3, 1, 4, 2, 5)
        return grid.flatten(4).flatten(2, 3)[..., :height, :width]

    def stream(
        self, image: Tensor, text: Tensor, references: list[Tensor], options: dict
    ) -> Tensor:
        parts = self.join(image, text, references)
        lengths = [part.shape[1] for part in parts]
        x = torch.cat(parts, dim=1)
        for block in self.blocks:
            x = block(x, options)
        where = next(i for i, part in enumerate(parts) if part is image)
        return x.split(lengths, dim=1)[where]

    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        return [text, image]


def patchify(x: Tensor) -> Tensor:
    x = nn.functional.pad(x, (0, x.shape[-1] % PATCH, 0, x.shape[-2] % PATCH))
    x = x.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def raster(x: Tensor) -> Tensor:
    place = torch.arange(x.shape[1])[:, None] / 7 + torch.arange(x.shape[2]) / 3
    return 0.3 * place.sin().to(x)


class SingleStream(Invented):
    """One sequence, text first."""


class ImageFirst(Invented):
    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        return [image, text]


class Registers(Invented):
    """Learned positions before the text and behind the image."""

    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        learned = self.registers.expand(len(image), -1, -1)
        return [learned, text, image, learned[:, :2]]


class References(Invented):
    """Reference pictures between text and image."""

    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        return [text, *references, image]


class DoubleBlock(nn.Module):
    """Text and image with weights of their own, heads in an axis of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList([nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2)])
        self.out = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, text: Tensor, image: Tensor, options: dict) -> tuple[Tensor, Tensor]:
        both = [
            qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1))
            for qkv, x in zip(self.qkv, (text, image), strict=True)
        ]
        q, k, v = torch.cat(both, dim=1).permute(2, 0, 3, 1, 4)
        out = optimized_attention(
            q, k, v, heads=HEADS, skip_reshape=True, transformer_options=options
        )
        words, places = out.split([text.shape[1], image.shape[1]], dim=1)
        return text + self.out[0](words), image + self.out[1](places)


class DoubleStream(Invented):
    def block(self) -> nn.Module:
        return DoubleBlock()

    def stream(
        self, image: Tensor, text: Tensor, references: list[Tensor], options: dict
    ) -> Tensor:
        for block in self.blocks:
            text, image = block(text, image, options)
        return image


class Flipped(Invented):
    """The order of text and image turns with depth."""

    def stream(
        self, image: Tensor, text: Tensor, references: list[Tensor], options: dict
    ) -> Tensor:
        words, places = text.shape[1], image.shape[1]
        x = torch.cat([text, image], dim=1)
        for number, block in enumerate(self.blocks):
            x = block(x, options)
            first, second = x.split([words, places] if number % 2 == 0 else [places, words], dim=1)
            x = torch.cat([second, first], dim=1)
        return x[:, :places] if len(self.blocks) % 2 else x[:, words:]


class Refined(Invented):
    """Text and image each through a layer of their own first, of like shape when lengths agree."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.text_refiner, self.image_refiner = Block(), Block()

    def stream(
        self, image: Tensor, text: Tensor, references: list[Tensor], options: dict
    ) -> Tensor:
        text, image = self.text_refiner(text, options), self.image_refiner(image, options)
        return super().stream(image, text, references, options)

    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        return [text, image]


class CrossBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_, self.cross = Block(), Attention()

    def forward(self, x: Tensor, text: Tensor, options: dict) -> Tensor:
        x = self.self_(x, options)
        return x + self.cross(x, text, options)


class CrossAttention(Invented):
    """The image attends to itself, then to the text."""

    def block(self) -> nn.Module:
        return CrossBlock()

    def stream(
        self, image: Tensor, text: Tensor, references: list[Tensor], options: dict
    ) -> Tensor:
        for block in self.blocks:
            image = block(image, text, options)
        return image


class HiddenLayer(Invented):
    """A last layer whose attention nobody sees."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.blocks[-1] = Block(Hidden)


class AllHidden(Invented):
    def block(self) -> nn.Module:
        return Block(Hidden)


class Reversed(Invented):
    """The prompt's columns stand in reverse."""

    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        return [text.flip(1), image]


class Split(Invented):
    """The image stands in the middle of the prompt."""

    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        return [text[:, :5], image, text[:, 5:]]


class Illustrated(Invented):
    """A column of the prompt carries a corner of the picture."""

    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        return [text[:, :3], text[:, 3:4] + image[:, 1:2], text[:, 4:], image]


class Exploding(Invented):
    """Numbers beyond any precision."""

    def join(self, image: Tensor, text: Tensor, references: list[Tensor]) -> list[Tensor]:
        return [text / 0.0, image]


SOUND = (
    SingleStream, ImageFirst, Registers, References, DoubleStream, Flipped, Refined, CrossAttention,
)  # fmt: skip


class Model(comfy.model_base.BaseModel):
    """What the host puts around a network: text of any length, references."""

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        out = super().extra_conds(**kwargs)
        out["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        references = kwargs.get("reference_latents")
        if references is not None:
            out["ref_latents"] = comfy.conds.CONDList(references)
        return out


class Config(comfy.supported_models_base.BASE):
    latent_format = comfy.latent_formats.SD15
    unet_config: dict[str, Any] = {}
    sampling_settings = {"shift": 1.0}
    memory_usage_factor = 1.0


def invented(network: type[Invented], seed: int = 1) -> comfy.model_patcher.ModelPatcher:
    """A MODEL with this network and random weights."""
    config = Config({"dtype": torch.float32})
    config.custom_operations = comfy.ops.disable_weight_init
    kind = comfy.model_base.ModelType.FLOW
    model = Model(config, kind, device=None, unet_model=network)
    randomize(model.diffusion_model, seed, {"q.weight": 2.0, "k.weight": 2.0})
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, device, torch.device("cpu"))


@cache
def shared(network: type[Invented]) -> comfy.model_patcher.ModelPatcher:
    return invented(network)


def conditioning(tokens: int = 11, seed: int = 3, references: bool = False) -> list[list[Any]]:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, tokens, TEXT, generator=generator)
    shapes = ((1, CHANNELS, 6, 4), (1, CHANNELS, 4, 4)) if references else ()
    latents = [torch.randn(shape, generator=generator) for shape in shapes]
    return [[text, {"reference_latents": latents} if references else {}]]
