"""Edits on transformers, driven by what the probe found, against every attention map in full."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from families import invented, refiners, streams
from families.edits import CASES, EXACT, SWAP, Case, check_exact, edited, expected
from families.tiny import Family
from families.watching import pack
from host_run import GraphError
from scenes import distance

pytestmark = pytest.mark.usefixtures("host", "models")


@pytest.mark.parametrize("case", [SWAP, CASES[3]], ids=lambda case: f"{case.mode} {case.target}")
@pytest.mark.parametrize("family", EXACT, ids=lambda family: family.name)
def test_edits_equal_the_written_out_maps(family: Family, case: Case) -> None:
    """Prompts of equal length in one call, and of unequal length in a call each."""
    if "Flux.2" in family.name and case is not SWAP:
        pytest.skip("padded to 512 columns, so that no two prompts differ in length")
    if family is refiners.HIDREAM and case is not SWAP:
        with pytest.raises(GraphError, match="11 tokens and the edited one 12, which this model"):
            edited(family, [case])
        return
    check_exact(family, case)


@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=lambda case: f"{case.mode} {case.kind}")
@pytest.mark.parametrize(
    "family",
    [streams.FLUX_DEV, streams.KREA2, streams.QWEN_IMAGE, refiners.Z_IMAGE, refiners.ANIMA],
    ids=lambda family: family.name,
)  # fmt: skip
def test_every_mode_equals_the_written_out_maps(family: Family, case: Case) -> None:
    check_exact(family, case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.mode} {case.target}")
@pytest.mark.parametrize(
    "network", [n for n in invented.SOUND if n is not invented.Flipped], ids=lambda n: n.__name__
)
def test_invented_networks_are_edited_exactly(network: Any, case: Case) -> None:
    check_exact(network, case)


def shifted(call: Any) -> Any:
    """The text seems to begin one position later, and the image with it."""
    text, image = call.keys
    return text._replace(length=text.length - 1), image, type(text)(-2, 1)


def rolled(call: Any) -> Any:
    """Columns seem to begin with the second."""
    text, image = call.keys
    last = type(text)(0, 1)
    return text._replace(role=1, length=text.length - 1), last, image


@pytest.mark.parametrize("mutant", [shifted, rolled], ids=lambda f: f.__name__)
def test_the_oracle_notices_a_wrong_layout(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pack("nodes.host.control.transformer_run")
    found = module.layout_of

    def wrong(*args: Any) -> Any:
        layout = found(*args)
        calls = tuple(replace(c, keys=mutant(c)) if c.reads_text else c for c in layout.calls)
        return replace(layout, calls=calls)

    monkeypatch.setattr(module, "layout_of", wrong)
    case = CASES[2]  # in a swap of equal lengths, columns that roll on both sides change nothing
    new, wanted = edited(streams.QWEN_IMAGE, [case]), expected(streams.QWEN_IMAGE, case)
    assert distance(new[1:], wanted[1:]) > 1e-4
