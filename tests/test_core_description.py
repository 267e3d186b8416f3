"""An edit told in words."""

from __future__ import annotations

import json

import pytest
from spelled_prompts import prompt

from p2p_core.alignment import align_replace
from p2p_core.description import changes, describe, short_label, warning
from p2p_core.edits import PromptEdit, prompt_edit, with_word_window
from p2p_core.schedule import Window
from p2p_core.word_table import word_table


def edit_of(source: str, target: str) -> PromptEdit:
    texts = (prompt(*text.split()) for text in (source, target))
    return prompt_edit(*texts, align_replace, Window(0, 0.8), Window(0, 0.4))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a red cat", "a blue cat", "red → blue"),
        ("a red cat", "a blue dog", "red cat → blue dog"),
        ("a cat", "a striped cat", "+ striped"),
        ("an old cat", "a cat", "an old → a"),
        ("a very old cat", "a cat", "- very old"),
        ("a cat on grass", "a dog on fresh grass", "cat → dog, + fresh"),
        ("a cat", "a cat", "nothing"),
        ("cat", "a dog barks", "cat → a dog barks"),
    ],
)
def test_changes_in_one_line(source: str, target: str, expected: str) -> None:
    edit = edit_of(source, target)
    assert str(changes(edit.source, edit.target)) == expected


def test_scales_and_windows_are_told() -> None:
    edit = edit_of("a red cat", "a blue cat").reweighted([3], -0.5)
    edit = with_word_window(edit, [2], Window(0.2, 1))
    assert short_label(edit) == "red → blue, cat × -0.5"
    assert describe(edit).splitlines() == [
        "Changed: red → blue, cat × -0.5",
        "Kept: a cat",
        "a: column 1, the source's 0-0.8",
        "blue: column 2, the source's 0.2-1",
        "cat: column 3, the source's 0-0.8, × -0.5",
        "self-attention: the source's 0-0.4",
    ]
    assert warning(edit) is None


def test_an_edit_in_name_only() -> None:
    same = edit_of("a cat", "a cat")
    assert "will be the source" in (warning(same) or "")
    assert short_label(same) == "no change"
    assert warning(same.reweighted([1], 2.0)) is None
    assert warning(same.reweighted([1], 1.0)) is not None


def test_an_edit_as_a_table() -> None:
    edit = edit_of("a very red cat", "a blue cat sleeps").reweighted([3], -0.5)
    edit = with_word_window(edit, [2], Window(0.5, 0.5))
    table = json.loads(json.dumps(word_table(edit)))
    assert table["self_window"] == [0, 0.4]
    states = [[[word["state"] for word in words] for words in span] for span in table["spans"]]
    assert states == [
        [["kept"], ["kept"]],
        [["swapped", "swapped"], ["swapped"]],
        [["kept"], ["kept"]],
        [[], ["added"]],
    ]
    [[_, [a]], [[very, red], [blue]], [_, [cat]], _] = table["spans"]
    assert (very["text"], red["columns"]) == ("very", [3]) and "window" not in red
    assert (a["window"], a["scale"]) == ([0, 0.8], 1)
    assert (blue["window"], cat["scale"]) == (None, -0.5)
    assert len(cat["tokens"]) == len(cat["columns"]) == 1
