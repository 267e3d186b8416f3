"""The table of companions (benchmarks/company.py), in part: what other tests do not have."""

from __future__ import annotations

import pytest
from companions import COMPANIONS
from companions.trial import Outcome, Trial
from scenes import Settings

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=3, width=128, height=128)
NAMES = [
    "three LoRAs", "weights in float8", "computed in bfloat16", "NAGuidance", "Mahiro",
    "TemporalScoreRescaling",
    "PerpNegGuider", "HyperTile", "Token Merging", "two image prompts", "regions by rows (couple)",
    "negated columns (NegPiP)", "three ControlNets with ranges", "a LoRA by hook on the positive",
    "tiles stacked", "tiles interleaved", "devices of three rows", "EasyCache", "LazyCache",
    "TorchCompileModel",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_beside_an_edit(name: str) -> None:
    companion = COMPANIONS[name]
    found: Outcome = Trial(companion, "sd1", SHORT).outcome(COMPANIONS)
    assert found.kind == companion.expected, found
    assert found.figures if found.text == "" else not found.figures
