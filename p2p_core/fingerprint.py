"""Whether two models are one, by some of their weights and in spite of their precision.

Rounding to m mantissa bits moves a number x by at most half a unit in the last place,

    |x - round(x)| <= ulp(x) / 2,   ulp(x) = max(2^(floor(log2 |x|) - m), smallest subnormal).

Two roundings of one number therefore lie within the sum of both bounds; the weights of another
model, also of a fine-tuned one, do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Mantissa bits and smallest subnormal. Checkpoints are often stored in fp16, so no more is asked.
PRECISIONS = {
    torch.float16: (10, 2.0**-24),
    torch.bfloat16: (7, 2.0**-133),
    torch.float8_e4m3fn: (3, 2.0**-9),
    torch.float8_e5m2: (2, 2.0**-16),
}
FINEST = PRECISIONS[torch.float16]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Values taken from a model's weights and patches.

    values: (n,) float32. half_ulps: (n,) float32, by how much rounding may have moved each. kind:
    names what the values are of, so that only equal kinds compare.
    """

    values: Tensor
    half_ulps: Tensor
    kind: str

    def same(self, other: Fingerprint) -> bool:
        """Whether both are of one model, in whatever precision."""
        if self.kind != other.kind or self.values.shape != other.values.shape:
            return False
        bound = self.half_ulps + other.half_ulps
        return bool(((self.values - other.values).abs() <= bound).all())


def take_values(weights: Sequence[Tensor], samples: int) -> tuple[Tensor, Tensor]:
    """Up to ``samples`` values of each weight, and half an ulp of each: (n,), (n,)."""
    parts = [_some(weight, samples) for weight in weights]
    values, bounds = zip(*parts, strict=True) if parts else ((), ())
    empty = torch.zeros(0)
    return torch.cat([empty, *values]), torch.cat([empty, *bounds])


def _some(weight: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    flat = weight.detach().flatten()
    values = flat[:: max(len(flat) // samples, 1)][:samples].float().cpu()
    bits, smallest = PRECISIONS.get(weight.dtype, FINEST)
    exponent = torch.frexp(values).exponent - 1
    ulp = torch.ldexp(torch.ones_like(values), exponent - bits).clamp_min(smallest)
    return values, ulp / 2
