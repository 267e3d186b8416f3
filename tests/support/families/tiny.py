"""A family in miniature: the keys of its real checkpoints, loaded by the host's own loader.

The host reads a checkpoint's family from the names and shapes of its weights. The names are the
real ones; `seen` holds what it would read from shapes that are too small here, and `sizes` what it
then builds instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import comfy.model_base
import comfy.model_detection
import comfy.ops
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from newer_host import skip
from tiny_model import randomize
from torch import Tensor

Extras = Callable[[int, torch.Generator], dict[str, Any]]


def no_extras(tokens: int, generator: torch.Generator) -> dict[str, Any]:
    return {}


def pooled(width: int) -> Extras:
    """Extras of a conditioning with a pooled vector."""

    def extras(tokens: int, generator: torch.Generator) -> dict[str, Any]:
        return {"pooled_output": torch.randn(1, width, generator=generator)}

    return extras


@dataclass(frozen=True, eq=False)
class Family:
    """One transformer: the host's network class, its sizes here, and what its conditioning holds.

    width: of the text; columns: of it, where the model takes no other number. channels: of the
    latent; frames: whether it has a time axis. multiple: by how much the text's length is padded
    before the attention. model: the host's name for it.
    """

    name: str
    model: str
    network: Any
    sizes: Mapping[str, Any]
    width: int
    seen: Mapping[str, Any] = field(default_factory=dict)
    extras: Extras = no_extras
    channels: int = 16
    frames: bool = False
    patches: tuple[tuple[str, Any], ...] = ()
    gains: Mapping[str, float] = field(default_factory=dict)
    extra_keys: tuple[str, ...] = ()
    columns: int = 0

    def load(
        self,
        seed: int = 1,
        stored: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda weights: weights,
        dtype: torch.dtype = torch.float32,
    ) -> ModelPatcher:
        """The MODEL, as UNETLoader would make it from a file.

        stored: what the file holds in place of these weights. dtype: that of UNETLoader.
        """
        if not hasattr(comfy.model_base, self.model):
            skip(f"model class {self.model} ({self.name})")
        with self._patched():
            operations = comfy.ops.disable_weight_init
            network = self.network(
                **self.sizes, dtype=torch.float32, device="cpu", operations=operations
            )
            randomize(network, seed, dict(self.gains))
            for name, grid in network.named_buffers():
                if name == "pos_embed":  # SD3 leaves it to its checkpoint
                    grid.normal_(generator=torch.Generator().manual_seed(seed)).mul_(0.02)
            weights = dict(network.state_dict())
            weights.update({key: torch.zeros(1) for key in self.extra_keys})
            with self.true_sizes(), _complaints() as complaints:
                model = comfy.sd.load_diffusion_model_state_dict(
                    stored(weights), model_options={"dtype": dtype}
                )
        assert model is not None, f"the host does not know the weights of {self.name}"
        found = type(model.model).__name__
        assert found == self.model, f"the host takes {self.name} for {found}"
        assert not complaints, complaints
        return model

    def conditioning(self, tokens: int = 21, seed: int = 3) -> list[list[Any]]:
        """A CONDITIONING of random text: cross_attn (1, tokens, width) and what goes with it."""
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, tokens, self.width, generator=generator)
        # the host's encoders always name the pooled vector, be it none
        return [[text, {"pooled_output": None, **self.extras(tokens, generator)}]]

    def latent(self, height: int = 12, width: int = 20, batch: int = 1) -> Tensor:
        frames = (1,) if self.frames else ()
        return torch.zeros(batch, self.channels, *frames, height, width)

    @contextmanager
    def _patched(self) -> Iterator[None]:
        started = [patch(target, value) for target, value in self.patches]
        for one in started:
            one.start()
        try:
            yield
        finally:
            for one in started:
                one.stop()

    @contextmanager
    def true_sizes(self) -> Iterator[None]:
        """While loading, the host sees true sizes for its choice, then builds the tiny ones."""
        detect = comfy.model_detection.detect_unet_config
        choose = comfy.model_detection.model_config_from_unet_config

        def detected(*args: Any, **kwargs: Any) -> Any:
            found = detect(*args, **kwargs)
            return None if found is None else {**found, **self.seen}

        def chosen(*args: Any, **kwargs: Any) -> Any:
            config = choose(*args, **kwargs)
            if config is not None:
                config.unet_config.update(self.sizes)
            return config

        with (
            patch("comfy.model_detection.detect_unet_config", detected),
            patch("comfy.model_detection.model_config_from_unet_config", chosen),
        ):
            yield


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the host says about missing and unexpected weights."""
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if "missing" in text or "unexpected" in text or "left over" in text:
                said.append(text)

    handler = Handler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(handler)
