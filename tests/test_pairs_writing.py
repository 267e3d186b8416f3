"""Captions by a language model: the strict parser, and the host's own node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2p_pairs.captions import read_captions
from p2p_pairs.writing import (
    HostWriter,
    Unusable,
    parse_answer,
    read_sources,
    write_captions,
)

GOOD = "Instruction: turn the cat into a dog\nEdited: a dog on the grass"


def test_the_two_lines_are_read() -> None:
    made = parse_answer("a cat on the grass", f"\n{GOOD}  \n\n")
    assert (made.instruction, made.edited) == ("turn the cat into a dog", "a dog on the grass")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "not two lines"),
        (f"Sure! Here it is:\n{GOOD}", "not two lines"),
        ("Edited: a dog\nInstruction: make it", "no instruction in its line"),
        ("Instruction:\nEdited: a dog on the grass", "no instruction in its line"),
        ("Instruction: x\nedited a dog on the grass", "no edited in its line"),
        ("Instruction: nothing\nEdited: A cat, on the grass.", "nothing changed"),
        ("Instruction: other\nEdited: two ships", "the captions have no word in common"),
        (f"Instruction: {'very ' * 50}\nEdited: a dog on the grass", "too long"),
    ],
)
def test_anything_else_is_not(answer: str, why: str) -> None:
    with pytest.raises(Unusable, match=f"^{why}$"):
        parse_answer("a cat on the grass", answer)


def test_what_does_not_parse_is_counted_and_a_run_goes_on(tmp_path: Path) -> None:
    sources = [f"a cat on the {place}" for place in ("grass", "beach", "roof", "table")]
    asked: list[str] = []

    def answer(source: str, seed: int) -> str:
        if len(asked) == 3 and source.endswith("table"):
            raise KeyboardInterrupt
        asked.append(source)
        return "I cannot." if "roof" in source else GOOD.replace("grass", source.split()[-1])

    out = tmp_path / "c.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_captions(sources, answer, out)
    with out.open("a", encoding="utf-8") as file:
        file.write('{"source": "a cat on the ta')  # the power failed
    asked.append("")
    counts = write_captions([*sources, sources[0]], answer, out)
    assert counts == {"written": 3, "not two lines": 1} and len(asked) == 5
    assert [one.source for one in read_captions(out).captions] == [*sources[:2], sources[3]]
    [skipped] = (tmp_path / "c.jsonl.skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(skipped) == {
        "source": "a cat on the roof", "reason": "not two lines", "answer": "I cannot.",
    }  # fmt: skip


def test_captions_are_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text("a  cat\n\na dog\n", encoding="utf-8")
    assert list(read_sources(path)) == ["a cat", "a dog"]
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no captions"):
        list(read_sources(path))


def test_the_host_runs_the_model(
    host: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Generate Text on a tiny random language model, then with one that answers well."""
    from text_encoders import make_encoder

    from headless import Pack

    clip = make_encoder("Krea 2")
    writer, source = HostWriter(Pack(), clip), "a cat on the grass"
    seen: list[dict] = []
    tokenize, generate = clip.tokenize, clip.generate

    def short(tokens: object, **options: object) -> object:
        seen.append(options)
        return generate(tokens, **{**options, "max_length": 4})

    monkeypatch.setattr(clip, "generate", short)
    counts = write_captions([source], writer, tmp_path / "bad.jsonl", seed=7)
    assert counts["written"] == 0 and counts.total() == 1
    assert seen[0]["seed"] == 7 and seen[0]["do_sample"] and seen[0]["max_length"] == 256

    told: list[str] = []
    monkeypatch.setattr(clip, "tokenize", lambda text, **_: told.append(text) or tokenize(text))
    tokenizer = getattr(clip.tokenizer, clip.tokenizer.clip).tokenizer
    monkeypatch.setattr(clip, "generate", lambda *_, **__: tokenizer(GOOD)["input_ids"])
    assert write_captions([source], writer, tmp_path / "good.jsonl") == {"written": 1}
    assert told[0].endswith("Caption: a cat on the grass\n") and "{caption}" not in told[0]
    [made] = read_captions(tmp_path / "good.jsonl").captions
    assert made.edited == "a dog on the grass"
