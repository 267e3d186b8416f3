"""P2P Filter Pairs keeps what CLIP's similarities let through, best first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_clips
import torch
import torch.nn.functional as F
from host_run import Graph, GraphError, run

from p2p_core.pairs import Captions, Draw, Pairs

pytestmark = pytest.mark.usefixtures("host")
CAPTIONS = Captions("a cat on the grass", "turn it into a dog", "a dog on the grass")
ALL = {"image_caption": -1.0, "directional": -1.0, "image_image": -1.0}


def pairs(count: int = 6) -> Pairs:
    noise = torch.Generator().manual_seed(1)
    pictures = torch.rand(2, count, 32, 32, 3, generator=noise)
    draws = tuple(Draw(number, 100 + number, 0.5, 0.25, 7.5) for number in range(count))
    return Pairs(CAPTIONS, draws, pictures[0], pictures[1])


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("clips")
    return tiny_clips.image_encoder(folder), tiny_clips.text_encoder(folder)


def filtered(made: Pairs, vision: Any = None, clip: Any = None, **inputs: Any) -> list:
    graph = Graph()
    wired = {"clip_vision": vision and graph.value(vision), "clip": clip and graph.value(clip)}
    node = graph.add("P2PFilterPairs", pairs=graph.value(made), **wired, **inputs)
    return run(graph, *(node[number] for number in range(4)))


def by_formula(made: Pairs, vision: Any, clip: Any) -> torch.Tensor:
    """The four similarities (K, 4), from the host's own outputs."""
    before, after = (
        F.normalize(vision.encode_image(pictures, crop=True)["image_embeds"].float(), dim=-1)
        for pictures in (made.source, made.edited)
    )
    texts = (CAPTIONS.source, CAPTIONS.edited)
    pooled = [clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)[1] for text in texts]
    project = clip.cond_stage_model.clip_l.transformer.text_projection
    old, new = (F.normalize(project(one).float(), dim=-1) for one in pooled)
    change = F.normalize(after - before, dim=-1)
    direction = change @ F.normalize(new - old, dim=-1)[0]
    return torch.stack([before @ old[0], after @ new[0], direction, (before * after).sum(-1)], 1)


def test_scores_and_order_are_the_papers(encoders: tuple[Any, Any]) -> None:
    made = pairs()
    source, edited, kept, report = filtered(made, *encoders, **ALL, keep=4)
    scores = by_formula(made, *encoders)
    order = scores[:, 2].argsort(descending=True)[:4]
    assert [draw.number for draw in kept.draws] == order.tolist()
    assert torch.equal(source, made.source[order]) and torch.equal(edited, made.edited[order])
    for judged, row in zip(kept.judged, scores[order], strict=True):
        torch.testing.assert_close(
            torch.tensor(list(judged.scores.values())), row, atol=1e-5, rtol=0
        )
    assert report.startswith("4 of 6 pairs kept; 2: beyond the best 4\n")
    assert f"sample {order[0]} (seed {100 + order[0]}, cross 0.50, self 0.25, cfg 7.5)" in report


@pytest.mark.parametrize(("name", "column"), [("directional", 2), ("image_image", 3)])
def test_a_threshold_leaves_out_what_is_below(
    name: str, column: int, encoders: tuple[Any, Any]
) -> None:
    made = pairs()
    scores = by_formula(made, *encoders)[:, column]
    limit = float(scores.sort().values[2:4].mean())  # three lie below
    _, _, kept, report = filtered(made, *encoders, **{**ALL, name: limit}, keep=9)
    assert {draw.number for draw in kept.draws} == set((scores > limit).nonzero()[:, 0].tolist())
    assert report.startswith(f"3 of 6 pairs kept; 3: {name.replace('_', ' ')} too low")


def test_both_captions_count(encoders: tuple[Any, Any]) -> None:
    made = pairs()
    worse = by_formula(made, *encoders)[:, :2].min(dim=1).values
    limit = float(worse.sort().values[2:4].mean())
    _, _, kept, _ = filtered(made, *encoders, **{**ALL, "image_caption": limit}, keep=9)
    assert {draw.number for draw in kept.draws} == set((worse > limit).nonzero()[:, 0].tolist())


def test_without_clip_it_orders_and_says_so() -> None:
    made = pairs(3)
    made.edited[0] = made.source[0]
    made.edited[2] = made.source[2] * 0.99
    _, _, kept, report = filtered(made)
    assert [draw.number for draw in kept.draws] == [2, 1]
    assert "1: nothing changed" in report and "nothing was compared with the captions" in report


def test_bad_wiring(encoders: tuple[Any, Any]) -> None:
    vision, clip = encoders
    with pytest.raises(GraphError, match="got clip_vision without clip. Wire both"):
        filtered(pairs(), vision)
    with pytest.raises(GraphError, match="got clip without clip_vision"):
        filtered(pairs(), None, clip)
    with pytest.raises(
        GraphError, match=r"No pair passed the filter \(0 of 6 pairs kept; .* too low\)"
    ):
        filtered(pairs(), vision, clip, directional=1.0)


def test_the_program_filters_as_the_node_does(encoders: tuple[Any, Any], tmp_path: Path) -> None:
    from unittest.mock import patch

    from headless import Pack
    from p2p_pairs.scorers import make_scorer
    from p2p_pairs.settings import Settings

    files = {"clip_vision": str(tmp_path / "v"), "text_encoder": str(tmp_path / "t")}
    pack, made = Pack(), pairs()
    with pytest.raises(ValueError, match="scorer clip needs clip_vision, a file of CLIP's"):
        make_scorer(pack, Settings(**files))
    for path in files.values():
        Path(path).touch()
    vision, clip = encoders
    loads = patch.multiple(Pack, clip_vision=lambda *_: vision, text_encoder=lambda *_: clip)
    with loads:  # the tiny encoders are not told by the loaders alone
        scorer = make_scorer(pack, Settings(**files, directional=-1.0))
    judged = scorer(CAPTIONS, "", made.source, made.edited)
    rows = torch.tensor([[one.scores[name] for name in scorer.names] for one in judged])
    torch.testing.assert_close(rows, by_formula(made, vision, clip), atol=1e-5, rtol=0)
