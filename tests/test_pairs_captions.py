"""Caption files and settings: every fault is told with file, line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from p2p_pairs.__main__ import main
from p2p_pairs.captions import Caption, read_captions
from p2p_pairs.settings import Settings, read_settings

GOOD = '{"source": "a cat", "instruction": "make it a dog", "edited": "a dog"}'
CAPTION = Caption("a cat", "make it a dog", "a dog")


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_three_formats_say_the_same(tmp_path: Path) -> None:
    table = pa.table({"input": ["a cat"], "edit": ["make it a dog"], "output": ["a dog"], "n": [1]})
    pq.write_table(table, tmp_path / "c.parquet")
    files = [
        written(tmp_path / "c.jsonl", f"\ufeff{GOOD}\n\n"),
        written(
            tmp_path / "c.csv", 'caption,instruction,edited,url\na  cat,"make it a dog",a dog,x\n'
        ),
        tmp_path / "c.parquet",
    ]
    assert [read_captions(file).captions for file in files] == [[CAPTION]] * 3


def test_repeated_lines_are_left_out_and_told(tmp_path: Path) -> None:
    other = GOOD.replace("a dog", "a pig")
    read = read_captions(written(tmp_path / "c.jsonl", "\n".join([GOOD, other, GOOD])))
    assert [one.edited for one in read.captions] == ["a dog", "a pig"]
    assert read.repeated == {3: 1}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("c.txt", "", r"c\.txt: captions are read from \.jsonl, \.csv, \.parquet files"),
        ("c.jsonl", "", "holds no captions"),
        ("c.jsonl", GOOD + '\n{"source": ', r"c\.jsonl, line 2, column 12: it is not JSON"),
        ("c.jsonl", "[1]", r"line 1: expected an object, got \[1\]"),
        ("c.jsonl", '{"source": "a"}', r"line 1: there is no column instruction \(or edit"),
        ("c.jsonl", GOOD.replace('"a dog"', "7"), "line 1, column edited: expected a text, got 7"),
        ("c.jsonl", GOOD.replace("a dog", "  "), "line 1, column edited: it is empty"),
        (
            "c.jsonl",
            GOOD.replace('"a dog"', '"a cat"'),
            "column edited: it is the same as the source",
        ),
        ("c.jsonl", GOOD.replace("a cat", "a" * 3000), "column source: 3000 letters are more than"),
        ("c.jsonl", GOOD.replace("}", ', "kind": 3}'), "column kind: expected a text, got 3"),
        ("c.jsonl", GOOD.encode() + b"\n\xff", r"line 2, byte 1: it is not UTF-8"),
        ("c.csv", "source,instruction\na,b\n", r"c\.csv, line 2: there is no column edited"),
        ("c.csv", "source,instruction,edited\na,b\n", "line 2: 2 columns, but the header has 3"),
        ("c.csv", 'source,instruction,edited\na,"b"c,d\n', "line 2: it is not CSV"),
        ("c.parquet", b"PAR1", r"c\.parquet: it cannot be read as Parquet"),
    ],
)
def test_bad_captions(name: str, content: str | bytes, match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        read_captions(written(tmp_path / name, content))


def test_settings_are_the_papers_but_for_what_is_written(tmp_path: Path) -> None:
    text = {"seed": 3, "cfg": [4, 8], "shares": {"": [0.1, 0.9], "style": [0, 0, 0.2, 0.5]}}
    read = read_settings(written(tmp_path / "s.json", json.dumps(text)))
    assert read == Settings(seed=3, cfg=(4, 8), shares={"": (0.1, 0.9), "style": (0, 0, 0.2, 0.5)})
    assert read_settings(written(tmp_path / "t.json", read.to_json())) == read
    assert read.recipe("style").self_ == (0.2, 0.5) and read.recipe("thing").self_ is None
    paper = Settings()
    assert (paper.samples, paper.keep, paper.steps) == (100, 4, 100)
    assert (paper.image_caption, paper.directional, paper.image_image) == (0.2, 0.2, 0.75)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"sede": 1}, "there is no setting 'sede'. Known: model, width"),
        ({"seed": "1"}, r"s\.json, seed: expected such as 0, got '1'"),
        ({"keep": 0}, "keep must be 1 or more, got 0"),
        ({"cfg": [8, 4]}, r"cfg must be a range .* got \(8, 4\)"),
        ({"cfg": 7}, r"s\.json, cfg: expected a list of numbers, got 7"),
        ({"shares": {"": [0.1]}}, r"shares, '': expected a list of numbers, got \[0\.1\]"),
        ({"shares": {"": [0.1, 0.9, 0.1]}}, "shares of '' must be 2 or 4 numbers"),
        ({"shares": {"a": [0.1, 0.9]}}, 'shares need an entry ""'),
        ({"shares": {"": [0.1, 1.9]}}, r"cross must be a range .* within 0…1"),
    ],
)
def test_bad_settings(fields: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        read_settings(written(tmp_path / "s.json", json.dumps(fields)))


def made(tmp_path: Path, *more: str) -> int:
    """Run the program on two captions with the embedded model, three steps, two samples."""
    lines = [json.dumps({"source": f"a {one} on the grass", "instruction": "make it a dog",
                         "edited": "a dog on the grass"}) for one in ("cat", "pig")]  # fmt: skip
    captions = written(tmp_path / "c.jsonl", "\n".join(lines))
    small = ["--samples", "2", "--steps", "3", "--width", "128", "--height", "128", "--block", "1"]
    out = ["--captions", str(captions), "--out", str(tmp_path / "out"), "--scorer", "plain"]
    return main(["make", *out, *small, *more])


def test_the_program_makes_pairs_and_goes_on(host: None, tmp_path: Path) -> None:
    assert made(tmp_path) == 0
    first, second = sorted((tmp_path / "out" / "parquet").iterdir())
    before = [pq.read_table(path).to_pylist() for path in (first, second)]
    assert [len(rows) for rows in before] == [2, 2]
    assert before[0][0]["score_likeness"] >= before[0][1]["score_likeness"]
    assert before[0][0]["original_prompt"] == "a cat on the grass"
    for path in (second, tmp_path / "out" / "blocks" / "00001.json"):
        path.unlink()
    assert made(tmp_path) == 0
    assert [pq.read_table(path).to_pylist() for path in (first, second)] == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--scorer", "none"], "There is no scorer 'none'. Known: clip, plain, or module:name."),
        (["--scorer", "no_such:Thing"], "The scorer 'no_such:Thing' cannot be had (No module"),
        (["--model", "no.safetensors"], "There is no checkpoint no.safetensors."),
        (["--settings", "no.json"], "no.json cannot be read"),
        (["--steps", "0"], "steps must be 1 or more, got 0."),
    ],
)
def test_the_program_tells_a_fault_in_a_sentence(
    more: list[str], told: str, host: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert made(tmp_path, *more) == 2
    assert f"p2p-pairs: {told}" in capsys.readouterr().err
