"""Training of the variant for instructions: its captions, its judge, and what it is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo_model"))


def test_captions_are_read_back_and_come_once() -> None:
    from book.instructions import KIND_NAMES, is_new
    from book.pair_captions import triples
    from book.reading import read_prompt

    lines = list(triples(300, seed=1, kinds=KIND_NAMES))
    assert len({tuple(line.values()) for line in lines}) == 300
    assert [line["kind"] for line in lines[: len(KIND_NAMES)]] == list(KIND_NAMES)
    for line in lines:
        for text in (line["source"], line["edited"]):
            prompt = read_prompt(text)
            assert prompt.text == text and not is_new(prompt)
    assert len(list(triples(10**6, seed=1, kinds=["season"]))) < 1000


@pytest.mark.parametrize("text", ["", "a cat", "an cat on the grass", "a cat and a dog", "a wolf"])
def test_other_captions_are_refused(text: str) -> None:
    from book.reading import read_prompt

    if text == "a cat":
        assert read_prompt(text).text == text
        return
    with pytest.raises(ValueError, match="not a one-thing caption"):
        read_prompt(text)


def painted(**changes: object) -> np.ndarray:
    """A picture (128, 128, 3) in 0…1 of one thing on the grass."""
    from book.world import Scene, Thing, render

    about = {"kind": "cat", "colour": None, "size": None, "clothes": None, "x": 64, "y": 110}
    thing = Thing(**{**about, "side": 60, **changes})  # type: ignore[arg-type]
    return render(Scene((thing,), "grass", extras=3)).astype(np.float32) / 255


def test_the_judge_keeps_what_it_should() -> None:
    from book.pair_judge import PairJudge

    from p2p_core.pairs import Captions

    cat, dog = painted(), painted(kind="dog")
    elsewhere = painted(kind="dog") * 0.6
    captions = Captions("a cat on the grass", "turn it into a dog", "a dog on the grass")
    before, after = np.stack([cat, dog, cat, cat]), np.stack([dog, cat, cat, elsewhere])
    judged = PairJudge(None, None)(captions, "thing", *map(torch.from_numpy, (before, after)))
    assert judged[0].refused is None and judged[0].rank > 22
    assert judged[1].refused == "the source is not what its caption says"
    assert judged[2].refused == "the edit is not what its caption says"
    assert judged[3].refused is not None


def test_pairs_come_as_they_were_made_and_every_kind_as_often(host: None, tmp_path: Path) -> None:
    from book.instructions import instruction_words
    from book.networks import CONFIG, Vocabulary
    from book.train_instruct import Pairs

    from p2p_pairs.rows import Outcome, part_bytes, png

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (20, 2, 128, 128, 3), dtype=np.uint8)
    rows = [
        {
            "key": f"{i}", "edit_prompt": "make it blue", "kind": "colour" if i < 18 else "style",
            "original_image": {"bytes": png(a)}, "edited_image": {"bytes": png(b)},
        }
        for i, (a, b) in enumerate(pictures)
    ]  # fmt: skip
    (tmp_path / "parquet").mkdir()
    shard = tmp_path / "parquet" / "train-00000-of-00001.parquet"
    shard.write_bytes(part_bytes(rows, Outcome("all"), ()))
    pairs = Pairs([tmp_path], CONFIG.WEIGHTS_PATH)
    again = Pairs([tmp_path], CONFIG.WEIGHTS_PATH)  # from the latents that are kept
    assert torch.equal(pairs.targets, again.targets) and len(list(tmp_path.rglob("*.safe*"))) == 1
    whole = torch.from_numpy(pictures).float() / 255
    encoded = pairs.vae.encode(whole.flatten(0, 1)).float().unflatten(0, (20, 2))
    torch.testing.assert_close(pairs.sources, encoded[:, 0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(pairs.targets, encoded[:, 1], atol=1e-3, rtol=1e-3)
    targets, row, sources = pairs.batch(Random(1), 300, Vocabulary(instruction_words()))
    assert row.shape == (300, 77)
    same = (targets[:, None] == pairs.targets).flatten(2).all(-1)  # (300, 20)
    assert (same.sum(1) == 1).all()
    assert 0.4 < same[:, 18:].any(1).float().mean() < 0.6
    given = sources.flatten(1).any(1)
    assert 0.8 < given.float().mean() < 1
    torch.testing.assert_close(sources[given], pairs.sources[same.long().argmax(1)][given])


def test_a_folder_without_pairs(host: None, tmp_path: Path) -> None:
    from book.networks import CONFIG
    from book.train_instruct import Pairs

    with pytest.raises(ValueError, match="there are no pairs in parquet"):
        Pairs([tmp_path], CONFIG.WEIGHTS_PATH)
