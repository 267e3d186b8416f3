"""A data set's folder: whatever ends a run, the next one goes on and nothing is lost or doubled."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pair_makers import NoiseMaker, captions
from PIL import Image

from p2p_pairs import files
from p2p_pairs.__main__ import work
from p2p_pairs.card import write_card
from p2p_pairs.files import DiskFull, locked
from p2p_pairs.folder import Folder
from p2p_pairs.rows import Outcome, part_bytes
from p2p_pairs.settings import FORMATS, Settings

SETTINGS = Settings(block=4)
WANTED = captions(10)


class Killed(BaseException):
    """The process ends here."""


def opened(path: Path) -> Folder:
    return Folder(path, SETTINGS, WANTED, FORMATS)


def go_on(path: Path, card: bool = True) -> Folder:
    """A run from where the last one ended. card: it takes most of the time."""
    folder, maker = opened(path), NoiseMaker(SETTINGS)
    work(folder, ((one.key, maker.make(one)) for one in folder.missing()))
    if card:
        write_card(folder, SETTINGS, 0)
    return folder


def contents(path: Path) -> dict[str, bytes]:
    """All files but for the lock and what is of a run that is not finished."""
    found = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("whole")
    go_on(path)
    return contents(path)


def test_a_finished_data_set(whole: dict[str, bytes]) -> None:
    names = sorted(whole)
    shards = [f"train-0000{number}-of-00003" for number in range(3)]
    assert names == [
        "README.md", "blocks/00000.json", "blocks/00001.json", "blocks/00002.json",
        "captions.json", "histograms.png", *(f"parquet/{shard}.parquet" for shard in shards),
        "settings.json", *(f"webdataset/{shard}.tar" for shard in shards),
    ]  # fmt: skip


@contextmanager
def killed_at(number: int, when: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """The process ends at its n-th write, before or after the file has its name."""
    count, write = 0, files.write_whole

    def writing(path: Path, content: Callable) -> None:
        nonlocal count
        count += 1
        if count == number and when == "before":
            path.parent.mkdir(exist_ok=True)
            (path.parent / f"{path.name}.unfinished").write_bytes(b"half")
            raise Killed
        write(path, content)
        if count == number:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", writing)
        patch.setattr("p2p_pairs.shards.write_whole", writing)
        yield lambda: count


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_can_end_at_any_write(
    when: str, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, ended = -1 if when == "before" else 0, True  # the odd writes before, the even after
    wanted = {name: whole[name] for name in whole if name not in ("README.md", "histograms.png")}
    while ended:
        number += 2
        path, ended = tmp_path / f"{number}", False
        path.mkdir()
        with killed_at(number, when, monkeypatch):
            try:
                go_on(path, card=False)
            except Killed:
                ended = True
        go_on(path, card=False)
        assert contents(path) == wanted, f"killed {when} write {number}"
    assert number > 20


def test_a_run_can_end_between_a_blocks_note_and_its_parts(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    go_on(tmp_path)
    maker = NoiseMaker(SETTINGS)
    for caption in WANTED[4:8]:
        part = tmp_path / "parts" / f"{caption.key}.parquet"
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(maker.make(caption))
    go_on(tmp_path)
    assert contents(tmp_path) == whole


def test_results_may_come_in_any_order_and_twice(whole: dict[str, bytes], tmp_path: Path) -> None:
    folder, maker = opened(tmp_path), NoiseMaker(SETTINGS)
    work(folder, ((one.key, maker.make(one)) for one in [*WANTED[::-1], *WANTED[3:5]]))
    write_card(folder, SETTINGS, 0)
    assert contents(tmp_path) == whole


def test_a_damaged_part_is_made_again(whole: dict[str, bytes], tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.add(WANTED[0].key, NoiseMaker(SETTINGS).make(WANTED[0]))
    [part] = (tmp_path / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:-9])
    go_on(tmp_path)
    assert contents(tmp_path) == whole


def test_what_failed_is_listed_and_tried_again(whole: dict[str, bytes], tmp_path: Path) -> None:
    folder, maker = opened(tmp_path), NoiseMaker(SETTINGS)
    bad = part_bytes([], Outcome(WANTED[5].key, error="ValueError: no luck"), ("rank",))
    work(folder, ((one.key, bad if one is WANTED[5] else maker.make(one)) for one in WANTED))
    write_card(folder, SETTINGS, 0)
    [line] = (tmp_path / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["error"] == "ValueError: no luck"
    assert json.loads(line)["source"] == "cat 5"
    assert "| of them failed (failures.jsonl) | 1 |" in (tmp_path / "README.md").read_text()
    assert [one.source for one in opened(tmp_path).missing()] == ["cat 5"]
    go_on(tmp_path)
    assert contents(tmp_path) == whole


def test_a_full_disk_loses_nothing(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own refusal, while a shard is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "data"
    path.mkdir()
    largest = max(len(content) for name, content in whole.items() if name.startswith("parquet"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, hard))
    try:
        with pytest.raises(DiskFull, match=r"train-0000.-of-00003.* cannot be written"):
            go_on(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(path.rglob("*.unfinished"))
    assert len(list(path.glob("parts/*"))) >= 4
    go_on(path)
    assert contents(path) == whole


def test_other_write_errors_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        files.write_bytes(tmp_path / "a", b"content")
    assert not list(tmp_path.iterdir())


def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    holds = "import sys; sys.path.append(sys.argv[1]); from p2p_pairs.files import locked; "
    holds += "from pathlib import Path; lock = locked(Path(sys.argv[2])); lock.__enter__(); "
    holds += "print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holds, str(Path(__file__).parents[1]), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline().strip() == b"held"
        with pytest.raises(ValueError, match="Another run is writing into"), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):  # which a killed process does not hold
        pass


@pytest.mark.parametrize(
    ("settings", "wanted", "match"),
    [
        (Settings(block=4, seed=1), WANTED, r"other settings \(seed: 0 there, 1 here\)"),
        (SETTINGS, WANTED[1:], r"other captions \(captions: 10 there, 9 here; digest"),
        (SETTINGS, WANTED[::-1], r"other captions \(digest"),
    ],
)
def test_another_data_set_is_not_mixed_in(
    settings: Settings, wanted: list, match: str, tmp_path: Path
) -> None:
    opened(tmp_path)
    with pytest.raises(ValueError, match=match):
        Folder(tmp_path, settings, wanted, FORMATS)


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("what", [".", "parquet", "webdataset"])
def test_it_is_loaded_by_datasets(what: str, tmp_path: Path) -> None:
    import datasets
    import pyarrow.parquet as pq

    data = tmp_path / "data"
    data.mkdir()
    go_on(data)
    shards = sorted(data.glob("parquet/*"))
    rows = [row for path in shards for row in pq.read_table(path).to_pylist()]
    loaded = datasets.load_dataset(str(data / what), split="train", cache_dir=str(tmp_path / "c"))
    assert len(loaded) == len(rows) > 5
    for ours, theirs in zip(rows, loaded, strict=True):
        about = theirs["json"] if what == "webdataset" else theirs
        for name in ("key", "edit_prompt", "seed", "cross_share", "score_rank"):
            assert about[name] == ours[name]
        for name in ("original_image", "edited_image"):
            shown = theirs[f"{name}.png" if what == "webdataset" else name]
            assert np.array_equal(np.asarray(shown), picture(ours[name]["bytes"]))


def test_the_card_counts(tmp_path: Path) -> None:
    folder = go_on(tmp_path)
    kept = sum(one.kept for one in folder.all_outcomes())
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    for name, count in (("pairs sampled", 50), ("pairs kept", kept), ("too low", 50 - kept)):
        assert f"| {name} | {count} |" in text
    assert picture((tmp_path / "histograms.png").read_bytes()).shape[1] > 500


def test_a_data_set_without_a_pair(tmp_path: Path) -> None:
    wanted = captions(3)
    folder = Folder(tmp_path, SETTINGS, wanted, FORMATS)
    parts = {one.key: part_bytes([], Outcome(one.key, 5, 0, {"no": 5}), ()) for one in wanted}
    work(folder, iter(parts.items()))
    write_card(folder, SETTINGS, 0)
    assert "| pairs kept | 0 |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("*.tar"))


def test_a_run_in_which_everything_fails_ends(tmp_path: Path) -> None:
    wanted = captions(30)
    folder = Folder(tmp_path, SETTINGS, wanted, FORMATS)
    bad = ((one.key, part_bytes([], Outcome(one.key, error="no model"), ())) for one in wanted)
    with pytest.raises(ValueError, match="The first 10 captions all failed: no model"):
        work(folder, bad)
