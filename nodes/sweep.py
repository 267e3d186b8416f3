"""Sweep: every combination of some settings of one edit, on one sheet with scores.

The node samples by itself, with a KSampler's inputs, instead of giving lists to one: so settings of
one seed share its source in one batch, the best of all can be told, and what is done is kept when
the run is cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..p2p_core.inversion import Inversion
from ..p2p_core.sweep import AXES, Grid, spelled_setting
from .edit_words import columns_of_all
from .host.edits import Edit
from .host.messages import text_on
from .host.sweep.run import Sweep as Work
from .host.sweep.sampling import SamplerSettings
from .host.wires import lacking, wired
from .score_inputs import scorer
from .sweep_board import Board
from .sweep_inputs import check_count, grid_of_texts, sweep_inputs, sweep_outputs

NEEDS_EDIT = "Wire a P2P Word Swap, Refine, Reweight or Local Blend Mask to edit."
TABLE, SHEET = "scores.csv", "sheet.png"


class Sweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PSweep",
            display_name="P2P Sweep",
            category="p2p",
            description="Makes one edit with every combination of shares, scales, windows, "
            "thresholds and seeds, and shows all pictures on one sheet with axes and scores; the "
            "best setting comes out as an edit to wire on. Stands in place of P2P Attention "
            "Controller and KSampler. Pictures and a table are written as they come into a folder "
            "of the output folder; cancelled or changed, a rerun goes on with what is there.",
            search_aliases=[
                "xy plot",
                "xyz plot",
                "grid search",
                "parameter sweep",
                "injection share study",
                "compare settings",
            ],
            inputs=sweep_inputs(),
            outputs=sweep_outputs(),
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        cross_replace_steps: str | None = None,
        self_replace_steps: str | None = None,
        scales: str | None = None,
        windows: str | None = None,
        thresholds: str | None = None,
        seeds: str | None = None,
        at_most: int | None = None,
        input_types: Mapping[str, str] | None = None,
    ) -> bool:
        if "edit" not in wired(cls, input_types):
            raise lacking(cls, "edit", NEEDS_EDIT)
        grid = grid_of_texts(
            cross_replace_steps=cross_replace_steps, self_replace_steps=self_replace_steps,
            scales=scales, windows=windows, thresholds=thresholds, seeds=seeds,
        )  # fmt: skip
        if isinstance(at_most, int):  # the host says what is wrong with anything else
            check_count(grid, at_most)
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        latent: dict,
        negative: list,
        vae: Any,
        seed: int,
        edit: Edit | None = None,
        inversion: Inversion | None = None,
        batch: int = 4,
        at_most: int = 100,
        folder: str = "sweep",
        best_by: str = "auto",
        least_image_similarity: float = 0.75,
        **others: Any,
    ) -> io.NodeOutput:
        if edit is None:
            raise lacking(cls, "edit", NEEDS_EDIT)
        _check(edit, latent)
        grid = grid_of_texts(**{name: others.get(name) for name in AXES})
        check_count(grid, at_most)
        measure = scorer(**others)
        _check_measured(best_by, measure.names)
        prompts = edit.prompt_edit
        board = Board(grid, seed, measure, (prompts.source.text, prompts.target.text))
        work = Work(
            model, vae, edit, negative, latent, inversion, _sampler(others), grid, seed, batch,
            _columns(edit, grid, "scales", others.get("scale_words", "")),
            _columns(edit, grid, "windows", others.get("window_words", "")),
        )  # fmt: skip
        return _carried_out(cls, work, board, folder, best_by, least_image_similarity)


def _carried_out(
    node: type[io.ComfyNode], work: Work, board: Board, name: str, by: str, least: float
) -> io.NodeOutput:
    """Make all pictures; what is done has its table and sheet, also when the run is cancelled."""
    for setting in board.grid.settings:
        work.edit_of(setting)  # what cannot be is said before anything is sampled
    report = text_on(node)
    folder = work.folder(name, report)
    choice, finished = None, False
    try:
        for cells in work.cells(folder, report):
            board.add(cells)
            folder.write(TABLE, board.table())
        finished = True
    finally:
        if board.cells:
            choice = board.best(by if finished else "auto", least)
            best = board.settings[choice.number]
            sheet = board.sheet(best, by)
            folder.write(SHEET, (sheet.clamp(0, 1) * 255).round().byte())
    assert choice is not None
    text = f"Best: {spelled_setting(best) or 'the edit'} ({choice.why}). In {folder.path}."
    report(text)
    shown = {"images": [{"filename": SHEET, "subfolder": folder.subfolder, "type": "output"}]}
    made = work.edit_of(best)
    return io.NodeOutput(
        sheet[None], board.pictures, made, best.get("seeds", work.seed), *_values(made, best),
        text, board.table(), ui=shown,
    )  # fmt: skip


def _values(edit: Edit, setting: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """cross_replace_steps, self_replace_steps, scale and threshold of an edit."""
    made = edit.prompt_edit
    threshold = made.blend.threshold if made.blend is not None else float("nan")
    return made.common_window.end, made.self_window.end, setting.get("scales", 1.0), threshold


def _sampler(given: Mapping[str, Any]) -> SamplerSettings:
    names = ("steps", "cfg", "sampler_name", "scheduler")
    optional = {"denoise": 1.0, "mode": "auto", "blocks": ""}
    more = {name: given.get(name, default) for name, default in optional.items()}
    return SamplerSettings(**{name: given[name] for name in names}, **more)


def _check_measured(by: str, names: Sequence[str]) -> None:
    if by != "auto" and by not in names:
        raise ValueError(
            f"best_by is {by}, which is not measured here; what is: {', '.join(names)}. Choose one "
            "of them or auto, or wire what it needs (clip_vision, score_clip, score_mask, dino or "
            "lpips)."
        )


def _check(edit: Edit, latent: dict) -> None:
    if edit.plain:
        raise ValueError(
            "A plain prompt has no edit to sweep. Wire a P2P Word Swap, Refine or Reweight."
        )
    if len(latent["samples"]) != 1:
        raise ValueError(
            f"P2P Sweep makes one picture for every setting, but the latent has "
            f"{len(latent['samples'])}. Set its batch_size to 1 and name seeds instead."
        )


def _columns(edit: Edit, grid: Grid, axis: str, words: str) -> tuple[int, ...]:
    """The target's columns of an axis's words; ValueError for one without the other."""
    name = {"scales": "scale_words", "windows": "window_words"}[axis]
    if (axis in grid.axes) != bool(words.strip()):
        there, absent = (axis, name) if axis in grid.axes else (name, axis)
        raise ValueError(f"{there} goes with {absent}, which is empty. Fill in both, or neither.")
    [columns] = columns_of_all(edit.clip, [edit.prompt_edit.target], words)
    return columns


NODES = [Sweep]
