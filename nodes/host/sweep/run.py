"""A sweep: its pictures from the folder where they are there, sampled in batches where not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from ....p2p_core.edits import PromptEdit
from ....p2p_core.inversion import Inversion
from ....p2p_core.sweep import Grid, spelled_setting, with_setting
from ..edits import Edit
from .folder import SweepFolder, sweep_folder
from .sampling import Progress, SamplerSettings, sample_edits
from .spelling import digest, model_content, vae_content

Setting = dict[str, Any]
FORMAT = 1  # of the folder
ANEW = (
    "Another node's part in this graph cannot be told from another day's, so this sweep cannot be "
    "resumed: every run of it gets a folder of its own."
)


class Cell(NamedTuple):
    """A picture of a sweep and the source of its seed, (H, W, 3)."""

    setting: Setting
    source: Tensor
    picture: Tensor


@dataclass(frozen=True, eq=False)
class Sweep:
    """Everything that is sampled. scaled, windowed: columns that scales and windows are for.

    seed: of settings that name none. batch: edits that are sampled with one source.
    """

    model: Any
    vae: Any
    edit: Edit
    negative: list
    latent: dict
    inversion: Inversion | None
    sampler: SamplerSettings
    grid: Grid
    seed: int
    batch: int
    scaled: tuple[int, ...]
    windowed: tuple[int, ...]

    def edit_of(self, setting: Setting) -> Edit:
        """The edit with one setting; ValueError for one that it cannot have."""
        made = with_setting(self.edit.prompt_edit, setting, self.scaled, self.windowed)
        return replace(self.edit, prompt_edit=made)

    def folder(self, name: str, report: Callable[[str], None]) -> SweepFolder:
        """The folder in which this sweep, or one over other values, was begun; else a new one."""
        prompts = self.edit.prompt_edit
        texts = [prompts.source.text, prompts.target.text]
        identity = digest(
            [FORMAT, model_content(self.model), vae_content(self.vae), texts,
             [_encoded(self.edit.clip, text) for text in texts], _of_edit(prompts), self.negative,
             self.latent, self.inversion, self.sampler, self.scaled, self.windowed]
        )  # fmt: skip
        if identity is None:
            logging.info(ANEW)
            report(ANEW)
        prompt = {"source_prompt": texts[0], "target_prompt": texts[1]}
        return sweep_folder(name, identity, {**prompt, **self.sampler.about()})

    def cells(self, folder: SweepFolder, report: Callable[[str], None]) -> Iterator[list[Cell]]:
        """The pictures in groups, as they come: those that are there, then those of every batch."""
        by_seed: dict[int, list[Setting]] = {}
        for setting in self.grid.settings:
            by_seed.setdefault(setting.get("seeds", self.seed), []).append(setting)
        found = {seed: self._found(folder, seed, settings) for seed, settings in by_seed.items()}
        yield from filter(None, found.values())
        there = {spelled_setting(cell.setting) for cells in found.values() for cell in cells}
        missing = {
            seed: [setting for setting in settings if spelled_setting(setting) not in there]
            for seed, settings in by_seed.items()
        }
        jobs = [(seed, part) for seed, left in missing.items() for part in self._batches(left)]
        total, done = len(self.grid.settings), sum(map(len, found.values()))
        progress = Progress(self.model, len(jobs), self.sampler.steps)
        for seed, settings in jobs:
            last = done + len(settings)
            report(f"Pictures {done + 1} to {last} of {total}: {spelled_setting(settings[0])} …")
            yield self._sampled(folder, seed, settings, progress)
            done = last

    def _batches(self, settings: Sequence[Setting]) -> list[list[Setting]]:
        return [list(settings[i : i + self.batch]) for i in range(0, len(settings), self.batch)]

    def _found(self, folder: SweepFolder, seed: int, settings: list[Setting]) -> list[Cell]:
        source = folder.picture(seed)
        if source is None:
            return []
        read = ((setting, folder.picture(seed, setting)) for setting in settings)
        return [Cell(setting, source, picture) for setting, picture in read if picture is not None]

    def _sampled(
        self, folder: SweepFolder, seed: int, settings: list[Setting], progress: Progress
    ) -> list[Cell]:
        edits = [self.edit_of(setting) for setting in settings]
        source, *edited = sample_edits(
            self.model, self.vae, edits, self.negative, self.latent, self.inversion, seed,
            self.sampler, progress,
        )  # fmt: skip
        before = folder.picture(seed)
        before = folder.keep(source, seed) if before is None else before
        return [
            Cell(setting, before, folder.keep(picture, seed, setting))
            for setting, picture in zip(settings, edited, strict=True)
        ]


def _encoded(clip: Any, text: str) -> Any:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def _of_edit(edit: PromptEdit) -> list[Any]:
    """What an edit is, beside its prompts' texts."""
    return [edit.mapper, edit.refine, edit.equalizer, edit.windows, edit.self_window, edit.blend]
