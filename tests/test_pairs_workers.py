"""Many workers make what one makes, whatever happens to them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pair_makers import NoiseMaker, captions

from p2p_pairs.folder import Folder
from p2p_pairs.rows import Outcome, part_bytes
from p2p_pairs.settings import Settings

SUPPORT = Path(__file__).parent / "support"
HAS_RAY = importlib.util.find_spec("ray") is not None
SETTINGS = Settings(block=4)


def rows(folder: Path) -> list[dict]:
    """All pairs of a data set, by shard."""
    shards = sorted(folder.glob("parquet/*"))
    return [row for path in shards for row in pq.read_table(path).to_pylist()]


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
def test_several_workers_make_what_one_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caption fails, one kills every worker that makes it, one only the first."""
    from p2p_pairs import ray_workers

    monkeypatch.setattr(ray_workers, "DEATHS", 0)  # which saves the time of dying thrice

    once = f"killer once {tmp_path / 'died'}"
    wanted = captions(13, "poison", "killer", once)
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    many = Folder(tmp_path / "many", SETTINGS, wanted, ["parquet"])
    made = ray_workers.made_by_workers(SETTINGS, wanted, workers=2, what="pair_makers:NoiseMaker")
    keys = []
    for key, part in made:
        keys.append(key)
        many.add(key, part)
    assert sorted(keys) == sorted(caption.key for caption in wanted)  # each once
    failed = {many.captions[one.key].source: one.error for one in many.failures()}
    assert failed == {
        "poison": "ValueError: poison",
        "killer": "Every worker that made it died.",
    }
    assert (tmp_path / "died").exists()

    one = Folder(tmp_path / "one", SETTINGS, wanted, ["parquet"])
    maker = NoiseMaker(SETTINGS)
    for caption in wanted:
        lost = part_bytes([], Outcome(caption.key, error="It kills."), ("rank",))
        one.add(caption.key, lost if caption.source == "killer" else maker.make(caption))
    assert rows(many.path) == rows(one.path)
