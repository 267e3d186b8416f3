"""Inversions on disk: saved and loaded they give the same pictures, bit for bit."""

from __future__ import annotations

import os
from dataclasses import astuple, fields, is_dataclass
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from host_run import Graph, GraphError, Host, Link, host_nodes, run
from safetensors import safe_open
from scenes import SOURCE, Edit, Scene, Settings, scene
from tiny_model import tiny_unet
from torch import Tensor

from p2p_core.inversion import Inversion

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=4, width=64, height=96)
SWAP = Edit("swap", "a photo of a red dog on a bench")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The host's input and output folder."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path / "input", tmp_path / "output"


def picture(batch: int = 1, height: int = 12, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 4, height, width, generator=generator) * 4


def invert(s: Scene, latent: Tensor, kind: str = "P2PDDIMInvert", **inputs: object) -> Link:
    if kind == "P2PDDIMInvert":
        inputs = {"model": s.model, "positive": s.text(SOURCE), **inputs}
    else:
        inputs = {"seed": 5, **inputs}
    link = s.graph.value({"samples": latent})
    return s.graph.add(kind, latent=link, steps=SHORT.steps, scheduler=SHORT.scheduler, **inputs)


def save(inversion: Inversion, name: str = "cat") -> dict[str, str]:
    """Through the node; where the file lies, as the page is told."""
    graph, host = Graph(), Host()
    node = graph.add("P2PSaveInversion", inversion=graph.value(inversion), name=name)
    host.run(graph)
    (found,) = host.executor.history_result["outputs"][node.node]["latents"]
    return found


def load(file: str = "cat_00001_.safetensors [output]") -> list:
    """Inversion, latent, sigmas."""
    graph = Graph()
    node = graph.add("P2PLoadInversion", file=file)
    return run(graph, node, node[1], node[2])


def ddim(**inputs: object) -> Inversion:
    s = scene(SHORT)
    return run(s.graph, invert(s, picture(), **inputs))


def edited(s: Scene, latent: Tensor, inversion: Link, edit: Edit = SWAP) -> Tensor:
    control = s.control(edit, inversion=inversion, latent=s.graph.value({"samples": latent}))
    return run(s.graph, s.sample(control, control[1], control[2]))["samples"]


def identical(ours: Any, theirs: Any) -> bool:
    if is_dataclass(ours):
        return all(map(identical, astuple(ours), astuple(theirs)))
    return torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs


@pytest.mark.parametrize("kind", ["P2PDDIMInvert", "P2PNoiseInvert"])
@pytest.mark.parametrize("batch", [1, 2])
def test_everything_comes_back_bit_for_bit(kind: str, batch: int) -> None:
    extra = {"fixed_point_iterations": 1} if kind == "P2PDDIMInvert" else {}
    s = scene(SHORT)
    fresh = run(s.graph, invert(s, picture(batch), kind, **extra))
    save(fresh)
    loaded, latent, sigmas = load()
    for field in fields(Inversion):
        assert identical(getattr(loaded, field.name), getattr(fresh, field.name)), field.name
    assert torch.equal(latent["samples"], fresh.start)
    assert torch.equal(sigmas, fresh.sigmas)


@pytest.mark.parametrize("kind", ["P2PDDIMInvert", "P2PNoiseInvert"])
def test_a_loaded_inversion_gives_the_same_edit(kind: str) -> None:
    s = scene(SHORT)
    inversion = invert(s, picture(), kind)
    fresh = edited(s, picture(), inversion)
    save(run(s.graph, inversion))
    s = scene(SHORT)
    file = "cat_00001_.safetensors [output]"
    again = edited(s, picture(), s.graph.add("P2PLoadInversion", file=file))
    assert torch.equal(again, fresh)
    assert torch.equal(again[:1], picture())


def test_names_folders_and_numbers(folders: tuple[Path, Path]) -> None:
    inputs, outputs = folders
    inversion = ddim()
    assert save(inversion, "p2p/deep/cat") == {
        "filename": "cat_00001_.safetensors", "subfolder": "p2p/deep", "type": "output",
    }  # fmt: skip
    assert save(inversion, " cat%hour% ä 🐱 ")["filename"].endswith(" ä 🐱_00001_.safetensors")
    first = (outputs / "p2p/deep/cat_00001_.safetensors").read_bytes()
    assert save(inversion, "p2p/deep/cat")["filename"] == "cat_00002_.safetensors"
    assert (outputs / "p2p/deep/cat_00001_.safetensors").read_bytes() == first
    (inputs / "of a friend").mkdir()
    (inputs / "of a friend/tree.safetensors").write_bytes(first)
    safetensors.torch.save_file({"a": torch.zeros(1)}, inputs / "checkpoint.safetensors")
    (inputs / "text.safetensors").write_text("no inversion")
    info = host_nodes.NODE_CLASS_MAPPINGS["P2PLoadInversion"].INPUT_TYPES()
    files = info["required"]["file"][1]["options"]
    assert files[:2] == ["of a friend/tree.safetensors", files[1]]
    assert files[2:] == [f"p2p/deep/cat_0000{i}_.safetensors [output]" for i in (1, 2)]
    for file in files:
        assert load(file)[0].method == "ddim"


def test_a_person_can_read_what_is_in_a_file(folders: tuple[Path, Path]) -> None:
    inversion = ddim(fixed_point_iterations=1)
    save(inversion)
    with safe_open(folders[1] / "cat_00001_.safetensors", framework="pt") as content:
        assert content.metadata() == {
            "format": "p2p-inversion", "version": "2", "method": "ddim", "steps": "4",
            "latent_size": "1 x 4 x 12 x 8", "model": inversion.model.kind,
            "residual": repr(inversion.residual),
        }  # fmt: skip


@pytest.mark.parametrize("part", ["save_file", "os.replace"])
def test_a_failed_save_leaves_nothing_behind(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    inversion = ddim()
    target = os.replace if part == "os.replace" else safetensors.torch.serialize_file

    def fail(*arguments: object, **options: object) -> None:
        if part == "os.replace":
            assert Path(str(arguments[0])).stat().st_size > 0
        raise OSError(28, "No space left on device")

    owner = os if part == "os.replace" else safetensors.torch
    monkeypatch.setattr(owner, target.__name__, fail)
    with pytest.raises(GraphError, match="could not be saved as 'cat'.*No space.*free space"):
        save(inversion)
    assert list(folders[1].iterdir()) == []


def test_a_changed_file_is_read_again(folders: tuple[Path, Path]) -> None:
    inversion = ddim()
    save(inversion)
    path = folders[1] / "cat_00001_.safetensors"
    host = Host()

    def load_again() -> Inversion:
        graph = Graph()
        return host.run(graph, graph.add("P2PLoadInversion", file=f"{path.name} [output]"))

    before = load_again()
    assert load_again() is before
    s = scene(SHORT)
    save(run(s.graph, invert(s, -picture())), "other")
    os.replace(folders[1] / "other_00001_.safetensors", path)
    assert torch.equal(load_again().latent, -picture())


def with_lora(model: ModelPatcher, strength: float) -> ModelPatcher:
    name = "diffusion_model.middle_block.1.proj_in.weight"
    change = torch.ones_like(model.model_state_dict()[name])
    patched = model.clone()
    patched.add_patches({name: ("diff", (change,))}, strength)
    return patched


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model", "made with another model.*Invert the picture again"),
        ("lora", "made with another model.*or other LoRAs"),
        ("strength", "made with another model.*or other LoRAs"),
        ("size", r"holds a latent of shape \(1, 4, 12, 8\).*got one of \(1, 4, 8, 8\)"),
        ("batch", r"holds a latent of shape \(1, 4, 12, 8\).*got one of \(2, 4, 12, 8\)"),
        ("prompt", "source prompt is 'a tree'.*made under another prompt"),
    ],
)
def test_a_loaded_inversion_elsewhere(change: str, message: str) -> None:
    made = tiny_unet()
    s = scene(SHORT, model=with_lora(made, 0.5) if change == "strength" else made)
    save(run(s.graph, invert(s, picture())))
    models = {
        "model": lambda: tiny_unet(seed=9),
        "lora": lambda: with_lora(made, 0.5),
        "strength": lambda: with_lora(made, 0.6),
    }
    s = scene(SHORT, model=models.get(change, lambda: made)())
    latents = {"size": picture(height=8), "batch": picture(2)}
    edit = Edit("swap", "a bush", "a tree") if change == "prompt" else SWAP
    loaded = s.graph.add("P2PLoadInversion", file="cat_00001_.safetensors [output]")
    with pytest.raises(GraphError, match=message):
        edited(s, latents.get(change, picture()), loaded, edit)
