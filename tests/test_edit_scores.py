"""P2P Edit Scores, on the host's executor: its figures are the metrics', its errors sentences."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional.image.lpips as oracle
from host_run import GraphError, Link, run
from scenes import SOURCE, Edit, Scene, Settings, scene
from tiny_clips import DINO, WIDTH, image_encoder, text_encoder

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=2, width=64, height=64)
TARGETS = ["a photo of a blue dog on a bench", "a photo of a red cat on a table"]


@pytest.fixture
def edited() -> Scene:
    return scene(SHORT)


def pictures(seeds: int) -> torch.Tensor:
    """[source, edit, edit_2] of each seed, smooth."""
    noise = torch.rand(seeds * 3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, size=(64, 64), mode="bicubic").clamp(0, 1).movedim(1, -1)


def scores(s: Scene, images: torch.Tensor | Link, **inputs: Any) -> list[Any]:
    """table, csv."""
    node = node_of(s, images, **inputs)
    return run(s.graph, node, node[1])


def node_of(s: Scene, images: torch.Tensor | Link, **inputs: Any) -> Link:
    edits = [Edit("swap", target) for target in TARGETS]
    wired = {
        name: value if isinstance(value, (str, Link)) else s.graph.value(value)
        for name, value in {"images": images, **inputs}.items()
    }
    return s.graph.add("P2PEditScores", **{"record": s.control(*edits)[3], **wired})


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_pixels_without_any_model(edited: Scene) -> None:
    images = pictures(2)
    table, text = scores(edited, images)
    found = rows(text)
    assert [(row["seed"], row["edit"]) for row in found] == [
        (seed, label) for seed in "12" for label in ("red cat → blue dog", "bench → table")
    ]
    assert set(found[0]) == {"seed", "edit", "structure_distance", "psnr", "ssim"}
    for row, (before, after) in zip(found, [(0, 1), (0, 2), (3, 4), (3, 5)], strict=True):
        squares = (images[before] - images[after]).square().mean()
        assert float(row["psnr"]) == pytest.approx(-10 * math.log10(squares), rel=1e-4)
    assert "bench → table (seed 2)" in table and f"{float(found[3]['psnr']):.1f}" in table


def test_clip_and_dino(edited: Scene, tmp_path: Path) -> None:
    """By hand from the encoders' own embeddings."""
    vision, clip = image_encoder(tmp_path), text_encoder(tmp_path)
    images = pictures(2)
    encoders = {"clip_vision": vision, "score_clip": clip, "dino": image_encoder(tmp_path, **DINO)}
    _, text = scores(edited, images, **encoders)
    found = rows(text)
    seen = F.normalize(vision.encode_image(images)["image_embeds"], dim=-1)
    read = []
    for caption in (SOURCE, *TARGETS):
        encoder = clip.cond_stage_model.clip_l
        encoder.set_clip_options({"projected_pooled": True})
        read.append(encoder.encode_token_weights(clip.tokenize(caption)["l"])[1][0])
        encoder.reset_clip_options()
    said = F.normalize(torch.stack(read), dim=-1)
    assert said.shape == (3, WIDTH)
    for number, row in enumerate(found):
        before, member = number // 2 * 3, number % 2 + 1
        after = before + member
        moved: torch.Tensor = F.cosine_similarity(
            seen[after] - seen[before], said[member] - said[0], dim=0
        )
        assert float(row["directional_similarity"]) == pytest.approx(moved.item(), abs=1e-5)
        for name, a, b in (
            ("image_similarity", seen[before], seen[after]),
            ("caption_similarity", seen[after], said[member]),
            ("source_caption_similarity", seen[before], said[0]),
        ):
            assert float(row[name]) == pytest.approx((a @ b).item(), abs=1e-5)
        assert float(row["dino_structure_distance"]) > 0


def test_a_mask_splits_what_is_measured(edited: Scene) -> None:
    images = pictures(1)
    mask = torch.zeros(1, 32, 32)
    mask[:, :, :16] = 1
    images[1:, :, 32:] = images[0, :, 32:]
    _, text = scores(edited, images, score_mask=mask)
    for row in rows(text):
        assert row["psnr_outside"] == "inf" and float(row["ssim_outside"]) == pytest.approx(1)
        assert float(row["psnr_inside"]) < float(row["psnr"]) < 60


def test_every_figure_as_a_list_of_its_own(edited: Scene) -> None:
    """One value an edit; what was not measured is no number, never a wrong one."""
    images, mask = pictures(1), torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    node = node_of(edited, images, score_mask=mask)
    kept: dict[int, list[float]] = {output: [] for output in range(2, 9)}
    ends = [edited.graph.call(kept[output].append, node[output]) for output in kept]
    text, *_ = run(edited.graph, node[1], *ends)
    for output, name in ((5, "structure_distance"), (6, "psnr_outside"), (7, "ssim_outside")):
        assert kept[output] == [float(row[name]) for row in rows(text)]
    assert all(len(kept[i]) == 2 and all(map(math.isnan, kept[i])) for i in (2, 3, 4, 8))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"score_clip": object()}, "need a clip_vision too"),
        ({"score_mask": torch.zeros(1, 64, 64)}, "mask is empty"),
        ({"score_mask": torch.ones(2, 64, 64)}, "one for each of the 1 pictures"),
        ({"images": torch.full((3, 64, 64, 3), float("nan"))}, "values that are no numbers"),
        ({"images": torch.rand(3, 8, 8, 3)}, "windows of 11x11 pixels.*are 8x8"),
        ({"images": torch.rand(4, 64, 64, 3)}, "got 4 pictures.*makes 3 for every seed"),
        ({"samples": {"samples": torch.rand(3, 4, 8, 8)}}, "images or its samples, but got both"),
    ],
)
def test_bad_inputs(edited: Scene, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message) as raised:
        scores(edited, **{"images": pictures(1), **inputs})
    assert raised.value.is_sentence


def test_what_cannot_be_scored_is_told_before_sampling(edited: Scene) -> None:
    sampled = []
    images = edited.graph.call(lambda: sampled.append(1))
    with pytest.raises(GraphError, match="need a clip_vision too"):
        run(edited.graph, node_of(edited, images, score_clip=object()))
    assert not sampled


def test_a_run_without_an_edit(edited: Scene) -> None:
    control = edited.control(Edit("swap", TARGETS[0]), enabled=False)
    with pytest.raises(GraphError, match="this run has no edit"):
        run(edited.graph, node_of(edited, pictures(1)[:1], record=control[3]))


def test_lpips_from_the_user_s_files(
    edited: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(GraphError, match="needs the file alexnet-owt-7be5be79.pth.*lpips"):
        scores(edited, pictures(1), lpips="alex")
    torch.manual_seed(3)
    expected = oracle._LPIPS(net="alex", pnet_rand=True).eval()
    trunk = {}
    for part in ("slice1", "slice2", "slice3", "slice4", "slice5"):
        trunk |= {f"features.{k}": v for k, v in getattr(expected.net, part).state_dict().items()}
    heads = {
        f"lin{i}.model.1.weight": layer.model[-1].weight for i, layer in enumerate(expected.lins)
    }
    (tmp_path / "lpips").mkdir()
    torch.save(
        {**trunk, "classifier.1.bias": torch.ones(2)},
        tmp_path / "lpips" / "alexnet-owt-7be5be79.pth",
    )
    torch.save(heads, tmp_path / "lpips" / "alex.pth")
    images = pictures(1)
    _, text = scores(scene(SHORT), images, lpips="alex")
    nchw = images.movedim(-1, 1)
    with torch.no_grad():
        wanted = expected(nchw[[0, 0]], nchw[1:], normalize=True).flatten().tolist()
    assert [float(row["lpips"]) for row in rows(text)] == pytest.approx(wanted, rel=1e-3)
    torch.save({"lin0": torch.ones(1)}, tmp_path / "lpips" / "alex.pth")
    with pytest.raises(GraphError, match="alex.pth is damaged, or not what"):
        scores(scene(SHORT), images, lpips="alex")
