"""Training of the variant for instructions: what it is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo_model"))


def test_pairs_come_as_they_were_made_and_every_kind_as_often(host: None, tmp_path: Path) -> None:
    from book.instructions import instruction_words
    from book.networks import Vocabulary
    from book.train_instruct import Pairs

    pairs = torch.randn(2, 20, 8, 16, 16).half()
    shard = {"instructions": ["make it blue"] * 20, "kinds": ["colour"] * 18 + ["style"] * 2}
    torch.save({**shard, "sources": pairs[0], "targets": pairs[1]}, tmp_path / "pairs_0000.pt")
    made = Pairs(tmp_path).batch(Random(1), 300, Vocabulary(instruction_words()))
    targets, rows, sources = made
    assert rows.shape == (300, 77)
    same = (targets[:, None] == pairs[1].float()).flatten(2).all(-1)  # (300, 20)
    assert (same.sum(1) == 1).all()
    assert 0.4 < same[:, 18:].any(1).float().mean() < 0.6
    given = sources.flatten(1).any(1)
    assert 0.8 < given.float().mean() < 1
    torch.testing.assert_close(sources[given], pairs[0][same.long().argmax(1)][given].float())
