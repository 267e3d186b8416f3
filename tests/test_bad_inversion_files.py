"""Names that are none, and files that hold no inversion: one sentence tells what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import folder_paths
import pytest
import torch
from host_run import Graph, GraphError, run
from safetensors.torch import load_file, save_file
from torch import Tensor

from p2p_core.inversion import Inversion

pytestmark = pytest.mark.usefixtures("host")
METADATA = {"format": "p2p-inversion", "version": "2", "method": "noise"}


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's input folder."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path / "input"


def inversion() -> Inversion:
    latent, sigmas = torch.ones(1, 4, 8, 8), torch.tensor([2.0, 1.0, 0.0])
    offsets = torch.stack([level * latent for level in sigmas])
    return Inversion(latent, latent + 2, sigmas, offsets, "noise")


def save(inversion: Inversion, name: str) -> None:
    graph = Graph()
    graph.add("P2PSaveInversion", inversion=graph.value(inversion), name=name)
    run(graph)


def load(file: str) -> Inversion:
    graph = Graph()
    return run(graph, graph.add("P2PLoadInversion", file=file))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is empty"),
        (" \t", "it is empty"),
        ("../../x", "it leads out"),
        ("p2p/../../x", "it leads out"),
        ("..", "it leads out"),
        ("/etc/x", "it leads out"),
        ("linked/x", "it leads out"),
        ("C:/x", "contains the character ':'"),
        ("..\\x", r"contains the character '\\\\'"),
        ("a\0b", r"contains the character '\\x00'"),
        ("a\nb", r"contains the character '\\n'"),
        ("a\x7fb", r"contains the character '\\x7f'"),
        ("a\ud800", r"contains the character '\\ud800'"),
        ("what?", r"contains the character '\?'"),
        ("p2p/nul", "'nul' is a device on Windows"),
        ("Com1.x/cat", "'Com1.x' is a device on Windows"),
        ("p2p/", "a part of it is empty"),
        ("p2p//cat", "a part of it is empty"),
        ("./cat", "ends with a dot"),
        ("cat.", "ends with a dot"),
        ("ä" * 150, "too long"),
    ],
)
def test_names(inputs: Path, name: str, why: str) -> None:
    outputs = inputs.parent / "output"
    (outputs / "linked").symlink_to(inputs)
    with pytest.raises(GraphError, match=f"cannot be used for a file: .*{why}.*such as 'cat'"):
        save(inversion(), name)
    assert [path.name for path in outputs.iterdir()] == ["linked"]
    assert not list(inputs.iterdir())


def test_a_folder_that_is_a_file(inputs: Path) -> None:
    (inputs.parent / "output/p2p").write_text("")
    with pytest.raises(GraphError, match="could not be saved as 'p2p/cat'.*another name"):
        save(inversion(), "p2p/cat")


def test_an_inversion_with_nan_is_not_saved(inputs: Path) -> None:
    broken = replace(inversion(), start=inversion().start * torch.nan)
    with pytest.raises(GraphError, match="cannot be saved: start holds.*not finite.*Invert"):
        save(broken, "cat")
    assert not list((inputs.parent / "output").iterdir())


OUTSIDE = "is outside ComfyUI's input and output folders. Copy it into the input folder"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none.safetensors", "no file 'none.safetensors' in ComfyUI's input.*choose one"),
        ("none.safetensors [output]", r"no file 'none.safetensors \[output\]'"),
        ("folder.safetensors", "is a folder. Choose a file"),
        ("", "is a folder"),
        ("../secret.safetensors", OUTSIDE),
        ("folder.safetensors/../../secret.safetensors", OUTSIDE),
        ("../secret.safetensors [output]", OUTSIDE),
        ("/etc/passwd", OUTSIDE),
        ("linked.safetensors", OUTSIDE),
        ("a\0b.safetensors", OUTSIDE),
    ],
)
def test_places(inputs: Path, file: str, message: str) -> None:
    secret = inputs.parent / "secret.safetensors"
    store(secret)
    (inputs / "folder.safetensors").mkdir()
    (inputs / "linked.safetensors").symlink_to(secret)
    with pytest.raises(GraphError, match=message):
        load(file)


def store(path: Path, metadata: dict[str, str] | None = None, **changes: Tensor | None) -> None:
    """Write an inversion by hand; a tensor that is None is left out, so is an empty text."""
    parts = {key: getattr(inversion(), key) for key in ("latent", "start", "sigmas", "offsets")}
    parts = {key: value for key, value in {**parts, **changes}.items() if value is not None}
    texts = {key: text for key, text in {**METADATA, **(metadata or {})}.items() if text}
    save_file({key: value.clone() for key, value in parts.items()}, path, texts)


def test_one_made_by_hand_can_be_read(inputs: Path) -> None:
    store(inputs / "x.safetensors")
    assert torch.equal(load("x.safetensors").offsets, inversion().offsets)


NOT_WHOLE = "'x.safetensors' is damaged, cut short, or no safetensors file.*Choose"
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), NOT_WHOLE),
    "text": (lambda path: path.write_text("hello " * 50), NOT_WHOLE),
    "cut short": (lambda path: (store(path), os.truncate(path, 900)), NOT_WHOLE),
    "cut in the header": (lambda path: (store(path), os.truncate(path, 40)), NOT_WHOLE),
    "other tensors": (
        lambda path: save_file({"weight": torch.ones(2)}, path), "holds no inversion.*Choose",
    ),
    "without metadata": (
        lambda path: (store(path), save_file(load_file(path), path)), "holds no inversion",
    ),
    "newer": (lambda path: store(path, {"version": "3"}), "version '3'.*reads version '2'.*Update"),
    "older": (lambda path: store(path, {"version": "1"}), "version '1'.*reads.*invert the picture"),
    "without version": (lambda path: store(path, {"version": ""}), "version None.*reads"),
}  # fmt: skip
IS_DAMAGED = "inversion in 'x.safetensors' is damaged: "
ONES = torch.ones(1, 4, 8, 8)
CONTENTS: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "no latent": ({"latent": None}, "it lacks latent"),
    "nothing": (dict.fromkeys(("latent", "start", "sigmas")), "it lacks latent, start, sigmas"),
    "more": ({"method": ONES}, "unknown tensor 'method'"),
    "half": ({"start": ONES.half()}, "start should be float32, but is torch.float16"),
    "integers": ({"sigmas": torch.tensor([2, 1, 0])}, "sigmas should be float32"),
    "latent of 3 dims": ({"latent": ONES[0]}, "latent should have a shape"),
    "no picture": ({"latent": ONES[:0]}, "latent should have a shape"),
    "start of another size": ({"start": ONES[..., :4]}, "start should have the shape"),
    "a step too few": ({"sigmas": torch.tensor([1.0, 0.0])}, "offsets should have the shape"),
    "no step": ({"sigmas": torch.zeros(1)}, "sigmas should be two levels or more"),
    "sigmas upwards": ({"sigmas": torch.tensor([0.0, 1.0, 2.0])}, "sigmas do not descend to 0"),
    "nan in sigmas": ({"sigmas": torch.tensor([torch.nan, 1.0, 0.0])}, "sigmas.*not finite"),
    "nan in latent": ({"latent": ONES * torch.nan}, "latent holds values that are not finite"),
    "infinite offsets": ({"offsets": torch.full((3, 1, 4, 8, 8), torch.inf)}, "offsets.*not fin"),
    "an open end": ({"offsets": torch.ones(3, 1, 4, 8, 8)}, "path does not end at the picture"),
    "prompt of 2 dims": ({"prompt": torch.ones(77, 64)}, "prompt should have a shape"),
    "two prompts": ({"prompt": torch.ones(2, 77, 64)}, "prompt should have a shape"),
}
TEXTS: list[tuple[dict[str, str], str]] = [
    ({"method": "magic"}, "method should be one of ddim, noise, got 'magic'"),
    ({"method": ""}, "method should be one of ddim, noise, got None"),
    ({"method": "ddim"}, "does not say which model"),
    ({"model": "no values"}, "lacks model_values, model_half_ulps"),
    ({"residual": "small"}, "residual 'small' is no number"),
]


@pytest.mark.parametrize("name", FILES)
def test_files(inputs: Path, name: str) -> None:
    make, message = FILES[name]
    make(inputs / "x.safetensors")
    with pytest.raises(GraphError, match=message):
        load("x.safetensors")


@pytest.mark.parametrize("name", CONTENTS)
def test_contents(inputs: Path, name: str) -> None:
    changes, message = CONTENTS[name]
    store(inputs / "x.safetensors", **changes)
    with pytest.raises(GraphError, match=f"{IS_DAMAGED}.*{message}.*again"):
        load("x.safetensors")


@pytest.mark.parametrize(("texts", "message"), TEXTS)
def test_texts(inputs: Path, texts: dict[str, str], message: str) -> None:
    store(inputs / "x.safetensors", texts)
    with pytest.raises(GraphError, match=f"{IS_DAMAGED}.*{message}"):
        load("x.safetensors")
