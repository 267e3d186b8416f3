"""What an AttentionController's runs leave behind for pictures and masks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .maps import MapStore
from .prompt import Prompt
from .schedule import Window


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One finished run. samples: its latent, (rows, C, …, h, w). maps: where its words looked.

    masks: after which step which local blend masks were used, (groups * edits, h, w).
    """

    samples: Tensor
    maps: MapStore
    masks: Mapping[int, Tensor]

    def blend_mask(self, window: Window) -> Tensor | None:
        """The last local blend mask used at a step inside the window, if there is one."""
        steps = [step for step in self.masks if window.holds(step, self.maps.steps)]
        return self.masks[max(steps)] if steps else None


@dataclass(frozen=True, eq=False)
class Record:
    """P2P_RECORD: the prompts of every group of rows, and the last few runs.

    prompts: [source, target of edit 1 …]. columns: finds a word or phrase in each of them, and
    raises ValueError if none has it. labels: what each of them is, for captions. pixels_per_latent:
    along an edge, of the decoded pictures.
    """

    prompts: tuple[Prompt, ...]
    columns: Callable[[str], list[tuple[int, ...]]]
    labels: tuple[str, ...]
    pixels_per_latent: int = 8
    runs: deque[RunRecord] = field(default_factory=lambda: deque(maxlen=4))

    def word_maps(
        self, run: RunRecord, columns: Sequence[Sequence[int]], window: Window
    ) -> dict[int, Tensor]:
        """Where each picture of a run attends to a word: row -> (h, w), unnormalised.

        columns: of the word in each of the prompts; rows whose prompt lacks it are left out.
        """
        found: dict[int, Tensor] = {}
        for number, chosen in enumerate(columns):
            rows = range(number, len(run.samples), len(self.prompts))
            if chosen:
                found |= dict(zip(rows, run.maps.words(rows, chosen, window), strict=True))
        return dict(sorted(found.items()))

    def keep(self, samples: Tensor, maps: MapStore, masks: Mapping[int, Tensor]) -> None:
        """Remember a finished run."""
        masks = {step: mask.cpu() for step, mask in masks.items()}
        self.runs.append(RunRecord(samples.detach().float().cpu(), maps.kept(), masks))

    def last_run(self, rows: int) -> RunRecord:
        """The last run with so many pictures; ValueError if there is none among the last ones."""
        self._check_runs()
        for run in reversed(self.runs):
            if len(run.samples) == rows:
                return run
        raise ValueError(
            f"No run of this record made {rows} pictures. Wire all pictures of one run, and the "
            "record of the same AttentionController."
        )

    def _check_runs(self) -> None:
        if not self.runs:
            raise ValueError(
                "This record holds no maps. Wire samples from a sampler that uses this "
                "AttentionController's model, leave its record_maps switched on, and do not limit "
                "its positive to an area."
            )

    def run_of(self, samples: Tensor) -> RunRecord:
        """The run that made this latent; ValueError if there is none among the last ones."""
        self._check_runs()
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
