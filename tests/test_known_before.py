"""What is wrong before anything runs is said by the validation, on the node that it belongs to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import execution
import folder_paths
import pytest
from host_run import Graph, host_nodes
from scenes import SOURCE
from tiny_model import shared_clip

pytestmark = pytest.mark.usefixtures("host")


def said(kind: str, **inputs: Any) -> list[str]:
    """The details of every error of a node's validation."""
    graph = Graph()
    link = graph.add(kind, clip=graph.value(shared_clip()), **inputs)
    keep = {"class_type": "TestKeep", "inputs": {"value": [link.node, 0], "key": "k"}}
    valid, _, _, errors = asyncio.run(
        execution.validate_prompt("known", {**graph.prompt, "keep": keep}, None)
    )
    assert valid == (not errors)
    return [e["details"] for error in errors.values() for e in error["errors"]]


TEXTS = {"source_prompt": SOURCE, "target_prompt": "a dog"}


@pytest.mark.parametrize("kind", ["P2PWordSwap", "P2PRefine", "P2PEdit"])
@pytest.mark.parametrize("name", ["source_prompt", "target_prompt"])
def test_empty_prompts(kind: str, name: str) -> None:
    assert any(
        f"{name} is empty. Describe" in text for text in said(kind, **{**TEXTS, name: " \n"})
    )


@pytest.mark.parametrize("kind", ["P2PWordSwap", "P2PRefine"])
@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ("dog 0.4", "not of the form 'word: start-end'"),
        ("dog: 0.5-0.2", "inside 0…1"),
        ("dog: 0-1\ndog: 0-0.5", "'dog' twice"),
    ],
)
def test_windows(kind: str, windows: str, message: str) -> None:
    texts = said(kind, **TEXTS, word_windows=windows)
    assert texts and all(message in text for text in texts)
    assert said(kind, **TEXTS, word_windows="dog: 0-0.5") == []


def test_a_prompt_without_words() -> None:
    assert "prompt is empty" in said("P2PPlainPrompt", prompt="")[0]


def test_no_inversion_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("input", "output"):
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path))
    [file] = host_nodes.NODE_CLASS_MAPPINGS["P2PLoadInversion"].INPUT_TYPES()["required"]["file"][
        1
    ]["options"]
    [text] = said("P2PLoadInversion", file=file)
    assert "no inversion to load. Make one with P2P Save Inversion" in text
    assert not any("argument" in text for text in said("P2PLoadInversion"))


def test_prompts_from_other_nodes_are_not_judged() -> None:
    graph = Graph()
    text = graph.value("a dog")
    assert said("P2PWordSwap", source_prompt=SOURCE, target_prompt="a dog") == []
    link = graph.add(
        "P2PWordSwap", clip=graph.value(shared_clip()), source_prompt=text, target_prompt=text
    )
    prompt = {
        **graph.prompt,
        "keep": {"class_type": "TestKeep", "inputs": {"value": [link.node, 0], "key": "k"}},
    }
    assert asyncio.run(execution.validate_prompt("wired", prompt, None))[0]
