"""The autoencoder: the host's TAESD layout with eight latent channels and fewer features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from book.host import use_host

use_host()
from comfy.taesd.taesd import Block, Clamp, conv  # noqa: E402

WIDTHS = (16, 24, 32, 48)  # of the encoder at 1, 1/2, 1/4 and 1/8 of the picture's size
DECODER_WIDTHS = (24, 32, 48, 48)
LATENT_CHANNELS = 8
MEAN, SCALE = 0.5, 3.0  # of colours in [0, 1], where training starts


def _initialise(model: nn.Sequential) -> None:
    """Kaiming weights; residual blocks start near the identity."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model:
        if isinstance(module, Block):
            nn.init.normal_(module.conv[4].weight, std=2e-3)


def _carry_colours(layer: nn.Conv2d, kernel: Tensor) -> None:
    """Let a convolution's first three channels be the first three of its input, filtered."""
    layer.weight[:3] = 0
    for colour in range(3):
        layer.weight[colour, colour] = kernel


def _point() -> Tensor:
    kernel = torch.zeros(3, 3)
    kernel[1, 1] = 1
    return kernel


@torch.no_grad()
def build_encoder() -> nn.Sequential:
    """Pictures (B, 3, H, W) in [0, 1] to latents (B, 8, H/8, W/8).

    Untrained, the first three channels are the mean colour of each 8×8 patch.
    """
    layers: list[nn.Module] = [conv(3, WIDTHS[0]), Block(WIDTHS[0], WIDTHS[0])]
    for before, width in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
        layers += [conv(before, width, stride=2, bias=False)]
        layers += [Block(width, width) for _ in range(3)]
    encoder = nn.Sequential(*layers, conv(WIDTHS[-1], LATENT_CHANNELS))
    _initialise(encoder)
    first, *strided, last = (layer for layer in encoder if isinstance(layer, nn.Conv2d))
    mean = torch.zeros(3, 3)
    mean[1:, 1:] = 0.25
    _carry_colours(first, _point())
    for layer in strided:
        _carry_colours(layer, mean)
    _carry_colours(last, _point() * SCALE)
    last.bias[:3] = -MEAN * SCALE
    return encoder


@torch.no_grad()
def build_decoder() -> nn.Sequential:
    """Latents (B, 8, h, w) to pictures (B, 3, 8h, 8w), nominally in [0, 1].

    Untrained it enlarges the thumbnail of the first three channels.
    """
    widths = DECODER_WIDTHS[::-1]
    layers: list[nn.Module] = [Clamp(), conv(LATENT_CHANNELS, widths[0]), nn.ReLU()]
    for width, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [Block(width, width) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), conv(width, after, bias=False)]
    decoder = nn.Sequential(*layers, Block(widths[-1], widths[-1]), conv(widths[-1], 3))
    _initialise(decoder)
    first, *ups, last = (layer for layer in decoder if isinstance(layer, nn.Conv2d))
    blur = torch.tensor([1.0, 2.0, 1.0]) / 4
    for layer in ups:
        _carry_colours(layer, blur[:, None] * blur)
    _carry_colours(first, _point() / SCALE)
    first.bias[:3] = MEAN
    last.weight *= 0.03
    _carry_colours(last, _point())
    return decoder


def build_autoencoder() -> nn.ModuleDict:
    """Encoder and decoder, untrained."""
    return nn.ModuleDict({"encoder": build_encoder(), "decoder": build_decoder()})
