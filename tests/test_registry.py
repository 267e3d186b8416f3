"""What ComfyUI's registry and manager read of the pack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from host_run import host_nodes
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("key", "ratio"), [("Icon", 1), ("Banner", 21 / 9)])
def test_the_pictures_that_it_shows(key: str, ratio: float) -> None:
    [address] = re.findall(rf'^{key} = "(.*)"$', PROJECT, re.MULTILINE)
    with Image.open(REPOSITORY / address.split("/main/")[1]) as picture:
        width, height = picture.size
    assert width / height == pytest.approx(ratio)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("searched", "found"),
    [
        ("prompt2prompt", "P2PEdit"), ("change word", "P2PEdit"), ("swap word", "P2PWordSwap"),
        ("prompt weight", "P2PPromptWeights"), ("ddim inversion", "P2PDDIMInvert"),
        ("heat map", "P2PAttentionMaps"), ("photo edit", "P2PDDIMInvert"),
        ("semantic edit", "P2PEdit"),
    ],
)  # fmt: skip
def test_what_people_type_is_an_alias(searched: str, found: str) -> None:
    schema = host_nodes.NODE_CLASS_MAPPINGS[found].define_schema()
    assert searched in schema.search_aliases


@pytest.mark.usefixtures("host")
def test_every_node_describes_itself_and_its_inputs() -> None:
    ours = {k: v for k, v in host_nodes.NODE_CLASS_MAPPINGS.items() if re.match("I?P2P", k)}
    assert len(ours) >= 17
    for name, node in ours.items():
        schema = node.define_schema()
        assert len(schema.description) > 40 and schema.search_aliases, name
        assert all(slot.tooltip for slot in schema.inputs), name
        assert (REPOSITORY / "web" / "docs" / f"{name}.md").is_file()
