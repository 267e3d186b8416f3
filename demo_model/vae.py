"""The demo model's autoencoder: TAESD's layout from the host, with fewer channels."""

from __future__ import annotations

import torch
from host import use_host
from latents import LUMA, MEAN, SCALE
from torch import Tensor, nn

use_host()
from comfy.taesd.taesd import Block, Clamp, conv  # noqa: E402

ENCODER_WIDTH = 8
DECODER_WIDTHS = (24, 32, 48, 48)  # at 1, 1/2, 1/4 and 1/8 of the picture's size
LATENT_CHANNELS = 4


def _zeroed(model: nn.Sequential) -> nn.Sequential:
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


@torch.no_grad()
def build_encoder() -> nn.Sequential:
    """Pictures (B, 3, H, W) in [0, 1] to latents (B, 4, H/8, W/8), set by hand.

    It computes `latents.picture_latents` exactly: strided convolutions average 2×2 pixels,
    residual blocks pass positive numbers on unchanged. The last strided convolution also
    takes the luma of the upper and of the lower half.
    """
    width = ENCODER_WIDTH
    layers: list[nn.Module] = [conv(3, width), Block(width, width)]
    for _ in range(3):
        layers += [conv(width, width, stride=2, bias=False)]
        layers += [Block(width, width) for _ in range(3)]
    encoder = _zeroed(nn.Sequential(*layers, conv(width, LATENT_CHANNELS)))
    strided = [layer for layer in encoder if isinstance(layer, nn.Conv2d)][1:4]
    luma = torch.tensor(LUMA)
    for colour in range(3):
        encoder[0].weight[colour, colour, 1, 1] = 1
        for layer in strided:
            layer.weight[colour, colour, 1:, 1:] = 0.25
    for half in (0, 1):
        strided[-1].weight[3 + half, :3, 1 + half, 1:] = luma[:, None] / 2
    last = encoder[-1]
    for channel in range(3):
        last.weight[channel, channel, 1, 1] = SCALE[channel]
        last.bias[channel] = -MEAN[channel] * SCALE[channel]
    last.weight[3, 3:5, 1, 1] = torch.tensor([SCALE[3], -SCALE[3]])
    return encoder


@torch.no_grad()
def build_decoder() -> nn.Sequential:
    """Latents (B, 4, h, w) to pictures (B, 3, 8h, 8w), nominally in [0, 1].

    Untrained it blurs: three channels carry the patches' colours to the end, so training
    starts from a thumbnail and only has to learn what makes it sharp.
    """
    widths = DECODER_WIDTHS[::-1]
    layers: list[nn.Module] = [Clamp(), conv(LATENT_CHANNELS, widths[0]), nn.ReLU()]
    for width, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [Block(width, width) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), conv(width, after, bias=False)]
    decoder = nn.Sequential(*layers, Block(widths[-1], widths[-1]), conv(widths[-1], 3))
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in decoder:
        if isinstance(module, Block):  # start near the identity
            nn.init.normal_(module.conv[4].weight, std=2e-3)
    first, *ups, last = (layer for layer in decoder if isinstance(layer, nn.Conv2d))
    blur = torch.tensor([1.0, 2.0, 1.0]) / 4
    for layer in ups:
        _carry_colours(layer, blur[:, None] * blur)
    point = torch.zeros(3, 3)
    point[1, 1] = 1
    _carry_colours(first, point / SCALE[0])
    first.bias[:3] = torch.tensor(MEAN[:3])
    last.weight *= 0.03
    _carry_colours(last, point)
    return decoder


def _carry_colours(layer: nn.Conv2d, kernel: Tensor) -> None:
    """Let a convolution's first three channels be the first three of its input, filtered."""
    layer.weight[:3] = 0
    for colour in range(3):
        layer.weight[colour, colour] = kernel
