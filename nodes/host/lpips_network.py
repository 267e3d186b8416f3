"""LPIPS's networks from the user's own files; nothing is downloaded.

Two files each, under their well-known names: the classifier as torchvision publishes it, and the
layers' weights of the `lpips` package (weights/v0.1). They lie in ComfyUI's models/lpips folder,
the classifier also where torch keeps what it has downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import comfy.model_management
import comfy.utils
import folder_paths
import torch
import torchvision
from torch import Tensor

from ...p2p_core.perceptual import lpips

FOLDER, NONE = "lpips", "none"


class Network(NamedTuple):
    """A torchvision classifier, its published file, and the numbers of the layers that count."""

    architecture: str
    file: str
    layers: tuple[int, ...]


NETWORKS = {
    "alex": Network("alexnet", "alexnet-owt-7be5be79.pth", (1, 4, 7, 9, 11)),
    "squeeze": Network("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", (1, 4, 7, 9, 10, 11, 12)),
    "vgg": Network("vgg16", "vgg16-397923af.pth", (3, 8, 15, 22, 29)),
}


class Lpips:
    """The distance by one network; ValueError if its files are not there."""

    def __init__(self, name: str) -> None:
        self.network, self.name = NETWORKS[name], name
        self.device = comfy.model_management.get_torch_device()
        hub = Path(torch.hub.get_dir()) / "checkpoints"
        self.trunk = _found(self.network.file, [*_folders(), hub])
        self.heads = _found(f"{name}.pth", _folders())

    @cached_property
    def features(self) -> torch.nn.Module:
        """The classifier's layers."""
        with torch.device("meta"):  # without room for the classifier's last layers
            made = getattr(torchvision.models, self.network.architecture)(weights=None).features
        prefix = "features."
        with _named_errors(self.trunk):
            stored = {
                key[len(prefix) :]: value.float()
                for key, value in _read(self.trunk).items()
                if key.startswith(prefix)
            }
            made.load_state_dict(stored, assign=True)
        return made.eval().to(self.device)

    @cached_property
    def weights(self) -> list[Tensor]:
        """What each layer's channels count, (C_l,)."""
        with _named_errors(self.heads):
            stored = _read(self.heads)
            count = len(self.network.layers)
            return [stored[f"lin{number}.model.1.weight"].flatten() for number in range(count)]

    def __call__(self, pictures: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
        """See p2p_core.perceptual.lpips; (B,) on the CPU."""
        on_device = (None if x is None else x.to(self.device) for x in (pictures, others, mask))
        with torch.no_grad():
            return lpips(self._maps, self.weights, *on_device).cpu()  # type: ignore[arg-type]

    def _maps(self, x: Tensor) -> Sequence[Tensor]:
        found = []
        for number, layer in enumerate(self.features.children()):
            x = layer(x)
            if number in self.network.layers:
                found.append(x.clone())  # the next layer may write into it
        return found


def _folders() -> list[Path]:
    known = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))[0]
    return [Path(path) for path in [*known, Path(folder_paths.models_dir) / FOLDER]]


def _found(name: str, folders: Sequence[Path]) -> Path:
    """Where a file is, in the first folder that has it."""
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"LPIPS needs the file {name}, which is not in {' or '.join(map(str, folders))}. The help "
        f"of P2P Edit Scores says where to get it; or choose {NONE!r}."
    )


def _read(path: Path) -> dict[str, Any]:
    loaded: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    return loaded


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, RuntimeError, OSError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"The file {path} is damaged, or not what torchvision and the lpips package publish "
            f"under its name ({type(error).__name__}). Get it anew."
        ) from error
