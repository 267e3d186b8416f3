"""What an AttentionController's runs leave behind for pictures and masks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .maps import MapStore
from .prompt import Prompt


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One finished run. samples: its latent, (rows, C, h, w). maps: where its words looked.

    masks: after which step which local blend masks were used, (groups * edits, h, w).
    """

    samples: Tensor
    maps: MapStore
    masks: Mapping[int, Tensor]


@dataclass(frozen=True, eq=False)
class Record:
    """P2P_RECORD: the prompts of every group of rows, and the last few runs.

    prompts: [source, target of edit 1 …].
    """

    prompts: tuple[Prompt, ...]
    runs: deque[RunRecord] = field(default_factory=lambda: deque(maxlen=4))

    def keep(self, samples: Tensor, maps: MapStore, masks: Mapping[int, Tensor]) -> None:
        """Remember a finished run."""
        self.runs.append(RunRecord(samples.detach().float().cpu(), maps.kept(), dict(masks)))

    def run_of(self, samples: Tensor) -> RunRecord:
        """The run that made this latent; ValueError if there is none among the last ones."""
        if not self.runs:
            raise ValueError(
                "This record holds no run. Wire samples from a sampler that uses this "
                "AttentionController's model, and leave its record_maps switched on."
            )
        wanted = samples.detach().float().cpu()
        for run in reversed(self.runs):
            if run.samples.shape == wanted.shape and torch.allclose(
                run.samples, wanted, rtol=1e-2, atol=1e-2
            ):
                return run
        raise ValueError(
            f"The samples, a latent of shape {tuple(wanted.shape)}, were not made by a run of this "
            "record. Wire record and sampler output of the same AttentionController."
        )
