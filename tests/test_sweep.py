"""P2P Sweep, on the host's executor: its pictures are the controller's, nothing is made twice."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import folder_paths
import pytest
import torch
from host_run import GraphError, Interrupted, Link, run
from PIL import Image
from scenes import SOURCE, Edit, Scene, Settings, distance, scene
from tiny_clips import image_encoder, text_encoder

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=4, width=64, height=64)
TARGET = "a photo of a blue dog on a bench"
SIDE = 16  # of a decoded picture


class Decoder:
    """A VAE that shows three of the latent's channels; tells how often it was asked."""

    first_stage_model = torch.nn.Identity()

    def __init__(self) -> None:
        self.rows: list[int] = []

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(samples))
        pictures = torch.nn.functional.interpolate(samples[:, :3], size=(SIDE, SIDE))
        return (pictures / 8 + 0.5).clamp(0, 1).movedim(1, -1)


@pytest.fixture(autouse=True)
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


class Bench:
    """A scene with a VAE, and the sweeps of one edit in it."""

    def __init__(self, vae: Any = None, edit: Edit | None = None) -> None:
        self.s: Scene = scene(SHORT)
        self.vae = Decoder() if vae is None else vae
        self.edit = edit or Edit("swap", TARGET)

    def node(self, **inputs: Any) -> Link:
        s, q = self.s, SHORT
        wired = {
            "model": s.model, "latent": s.latent, "negative": s.negative, "seed": q.seed,
            "vae": s.graph.value(self.vae), "steps": q.steps, "cfg": q.cfg,
            "sampler_name": q.sampler_name, "scheduler": q.scheduler, "denoise": q.denoise,
        }  # fmt: skip
        edit = inputs.pop("edit", None) or self.edit.build(s.graph, s.clip)
        values = {name: s.graph.value(value) if not isinstance(value, (str, int, float, Link))
                  else value for name, value in inputs.items()}  # fmt: skip
        return s.graph.add("P2PSweep", **{**wired, "edit": edit, **values})

    def run(self, **inputs: Any) -> tuple[torch.Tensor, list[dict[str, str]]]:
        """The edits, and the table."""
        node = self.node(**inputs)
        edits, text = run(self.s.graph, node[1], node[9])
        return edits, list(csv.DictReader(io.StringIO(text)))

    def expected(self, edit: Edit, seed: int = SHORT.seed) -> torch.Tensor:
        """The picture of one edit by the ordinary way, at 8 bits."""
        control = self.s.control(edit)
        samples = self.s.sample(control, control[1], control[2], seed=seed)
        picture = Decoder().decode(run(self.s.graph, samples)["samples"])[1]
        return (picture * 255).round() / 255


def sampled(bench: Bench) -> int:
    """Edits that were sampled."""
    return sum(bench.vae.rows) - len(bench.vae.rows)


def test_every_picture_is_the_controller_s() -> None:
    bench = Bench()
    edits, rows = bench.run(cross_replace_steps="0, 0.5", self_replace_steps="0.25:0.75:0.5",
                            seeds="3, 4", batch=3)  # fmt: skip
    assert bench.vae.rows == [4, 2, 4, 2]
    assert [(r["seed"], r["self_replace_steps"], r["cross_replace_steps"]) for r in rows] == [
        (seed, share, cross)
        for seed in "34"
        for share in ("0.25", "0.75")
        for cross in ("0.0", "0.5")
    ]
    for picture, row in zip(edits, rows, strict=True):
        shares = {
            "cross": float(row["cross_replace_steps"]),
            "self_": float(row["self_replace_steps"]),
        }
        expected = bench.expected(Edit("swap", TARGET, **shares), int(row["seed"]))
        assert (picture - expected).abs().max() <= 1.01 / 255
    assert distance(edits[0], edits[3]) > 1e-2 and distance(edits[0], edits[4]) > 1e-2


def test_scales_and_windows_of_words() -> None:
    bench = Bench()
    edits, _ = bench.run(cross_replace_steps="", scales="-1, 2", scale_words="blue dog")
    for picture, scale in zip(edits, (-1, 2), strict=True):
        expected = bench.expected(Edit("swap", TARGET, scales=(("blue dog", scale),)))
        assert (picture - expected).abs().max() <= 1.01 / 255
    shares = {"cross_replace_steps": "0.5", "windows": "0-0.25, 0.25-1", "window_words": "dog"}
    edits, rows = bench.run(**shares, folder="windows")
    assert [row["window"] for row in rows] == ["0-0.25", "0.25-1"]
    for picture, window in zip(edits, ("0-0.25", "0.25-1"), strict=True):
        edit = Edit("swap", TARGET, cross=0.5, word_windows=f"dog: {window}")
        assert (picture - bench.expected(edit)).abs().max() <= 1.01 / 255


def test_thresholds_of_a_local_blend() -> None:
    bench = Bench()
    swap = bench.edit.build(bench.s.graph, bench.s.clip)
    words = {"source_words": "cat", "target_words": "dog"}
    blends = [
        bench.s.graph.add("P2PLocalBlendMask", edit=swap, threshold=threshold, **words)
        for threshold in (0.3, 0.1, 0.6)
    ]
    edits, _ = bench.run(edit=blends[0], cross_replace_steps="", thresholds="0.1, 0.6")
    for picture, blend in zip(edits, blends[1:], strict=True):
        once, _ = bench.run(edit=blend, cross_replace_steps="", folder="one")
        assert (picture - once[0]).abs().max() <= 1.01 / 255
    assert distance(edits[0], edits[1]) > 1e-3
    with pytest.raises(GraphError, match="thresholds sweeps .* this edit has none"):
        bench.run(cross_replace_steps="", thresholds="0.1, 0.6")


def test_a_rerun_goes_on(output: Path) -> None:
    """Other values use what is there; a damaged file is made again; another sweep moves aside."""
    bench = Bench()
    first, _ = bench.run(cross_replace_steps="0, 1")
    assert sampled(bench) == 2
    more, rows = bench.run(cross_replace_steps="0, 0.5, 1")
    assert sampled(bench) == 3 and len(rows) == 3
    assert torch.equal(more[[0, 2]], first)
    damaged = output / "sweep" / f"seed {SHORT.seed}, cross_replace_steps 0.5.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    again, _ = bench.run(cross_replace_steps="0, 0.5, 1")
    assert sampled(bench) == 4 and torch.equal(again, more)
    bench.run(cross_replace_steps="0, 0.5, 1", cfg=3.0)
    assert sampled(bench) == 7
    assert sorted(path.name for path in output.iterdir()) == ["sweep", "sweep_2"]
    names = {path.name for path in (output / "sweep").iterdir()}
    shares = [f"cross_replace_steps {share}" for share in ("0", "0.5", "1")]
    pictures = {f"seed {SHORT.seed}, {what}.png" for what in ("source", *shares)}
    assert names == {"scores.csv", "sheet.png", "sweep.json", *pictures}


@pytest.mark.parametrize("change", ["target", "latent", "model", "negative", "steps"])
def test_what_pictures_depend_on_makes_another_sweep(output: Path, change: str) -> None:
    bench = Bench()
    bench.run(cross_replace_steps="1")
    s = bench.s
    inputs: dict[str, Any] = {
        "target": {"edit": Edit("swap", f"{TARGET} in snow").build(s.graph, s.clip)},
        "latent": {"latent": {"samples": torch.ones(1, 4, 8, 8)}, "denoise": 0.5},
        "model": {"model": s.graph.add("FreeU_V2", model=s.model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)},
        "negative": {"negative": s.text("ugly")},
        "steps": {"steps": 3},
    }[change]
    bench.run(cross_replace_steps="1", **inputs)
    assert (output / "sweep_2").is_dir() and sampled(bench) == 2


def test_cancelling_keeps_what_is_done(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    decode, calls = bench.vae.decode, []

    def cancelled(samples: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()
        return decode(samples)

    monkeypatch.setattr(bench.vae, "decode", cancelled)
    with pytest.raises(Interrupted):
        bench.run(cross_replace_steps="0:1:0.25", batch=2)
    table = (output / "sweep" / "scores.csv").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 3
    with Image.open(output / "sweep" / "sheet.png") as sheet:
        assert sheet.width > 6 * 256
    _, rows = bench.run(cross_replace_steps="0:1:0.25", batch=2)
    assert bench.vae.rows == [3, 3, 2] and len(rows) == 5


def test_the_best_setting_can_be_wired_on(tmp_path: Path) -> None:
    """Edit, seed and shares of the best; the scores are those of P2P Edit Scores' encoders."""
    bench = Bench()
    s, graph = bench.s, bench.s.graph
    clip = {"clip_vision": image_encoder(tmp_path), "score_clip": text_encoder(tmp_path)}
    node = bench.node(cross_replace_steps="0, 1", seeds="3:5", least_image_similarity=-1.0, **clip)
    control = graph.add("P2PAttentionController", model=s.model, latent=s.latent, edit=node[2])
    samples = s.sample(control, control[1], control[2], seed=node[3])
    made, sheet, edits, seed, share, text, best = run(
        graph, samples, node, node[1], node[3], node[4], node[9], node[8]
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    number = max(range(6), key=lambda i: float(rows[i]["directional_similarity"]))
    row = rows[number]
    assert len({row["directional_similarity"] for row in rows}) == 6
    assert (int(row["seed"]), float(row["cross_replace_steps"])) == (seed, share)
    expected = (Decoder().decode(made["samples"])[1] * 255).round() / 255
    assert (edits[number] - expected).abs().max() <= 1.01 / 255
    assert f"Best: cross_replace_steps {share:g}, seed {seed} (highest directional" in best
    assert len(sheet) == 1 and sheet.shape[1] > 3 * 256


def test_a_photograph() -> None:
    bench = Bench()
    s = bench.s
    photograph = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    inversion = s.graph.add(
        "P2PDDIMInvert", model=s.model, positive=s.text(SOURCE), steps=SHORT.steps,
        scheduler="normal", latent=s.graph.value({"samples": photograph}),
    )  # fmt: skip
    bench.run(cross_replace_steps="0, 1", inversion=inversion, latent=inversion[1])
    [source] = Path(folder_paths.output_directory).glob("sweep/*source.png")
    with Image.open(source) as image:
        shown = torch.tensor(list(image.get_flattened_data())).reshape(SIDE, SIDE, 3)
    expected = (Decoder().decode(photograph)[0] * 255).round()
    assert torch.equal(shown.float(), expected)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"cross_replace_steps": "0:1:0"}, "never ends"),
        ({"cross_replace_steps": "0:1:0.01"}, r"101 pictures \(101 cross.*at_most is 100"),
        ({"scales": "1, 2"}, "scales goes with scale_words, which is empty"),
        ({"window_words": "dog"}, "window_words goes with windows, which is empty"),
        ({"scales": "2", "scale_words": "horse"}, "'horse' is not in the prompt"),
        ({"folder": "../x"}, "leads out of the output folder"),
        ({"best_by": "lpips"}, "best_by is lpips, which is not measured here.*psnr"),
        ({"latent": {"samples": torch.zeros(2, 4, 8, 8)}}, "the latent has 2"),
        ({"score_mask": torch.zeros(1, 8, 8)}, "mask is empty"),
        ({"score_clip": object()}, "need a clip_vision too"),
    ],
)
def test_bad_inputs(inputs: dict[str, Any], message: str, output: Path) -> None:
    bench = Bench()
    with pytest.raises(GraphError, match=message) as raised:
        bench.run(**{"cross_replace_steps": "0", **inputs})
    assert raised.value.is_sentence
    assert not bench.vae.rows, "before anything is sampled"


def test_an_edit_that_is_none() -> None:
    bench = Bench()
    plain = bench.s.graph.add("P2PPlainPrompt", clip=bench.s.clip, prompt=SOURCE)
    with pytest.raises(GraphError, match="A plain prompt has no edit to sweep"):
        bench.run(edit=plain)


def test_a_full_disk_is_told_and_a_rerun_goes_on(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    save = Image.Image.save

    def full(image: Image.Image, path: Any, *arguments: Any, **options: Any) -> None:
        if len(list((output / "sweep").glob("seed*"))) == 2:
            raise OSError(28, "No space left on device")
        save(image, path, *arguments, **options)

    with monkeypatch.context() as disk:
        disk.setattr(Image.Image, "save", full)
        with pytest.raises(GraphError, match="No space left on device.*goes on with what is there"):
            bench.run(cross_replace_steps="0, 0.5, 1", batch=1)
    assert not list(output.glob("sweep/.*"))
    bench.run(cross_replace_steps="0, 0.5, 1", batch=1)
    assert sampled(bench) == 4, "the second picture was lost, the first was not"


def test_what_cannot_be_recognised_is_never_taken_for_another(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()

    def patched(model: Any) -> Any:
        model = model.clone()
        model.model_options["transformer_options"]["somebody's"] = iter([1])
        return model

    model = bench.s.graph.call(patched, bench.s.model)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        bench.run(cross_replace_steps="1", model=model)
    assert sampled(bench) == 2 and "cannot be resumed" in caplog.text
    abouts = [
        json.loads((output / name / "sweep.json").read_text()) for name in ("sweep", "sweep_2")
    ]
    assert [about["identity"] for about in abouts] == [None, None]
    assert abouts[0]["source_prompt"] == SOURCE
