"""One sampling run of a transformer under attention control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid5

import torch
from torch import Tensor

from ..batch import BatchRows, ModelInputs
from ..blocks import check_blocks
from ..families.following import replaced_blocks
from ..families.inputs import Inputs, rows_of
from ..families.layouts import layout_of
from ..families.record import Layout
from ..runs import CONTROL, Sampling, entries
from .control_nets import steered_by_prompt
from .modes import Ask, Columns, asked
from .plan import ControlPlan
from .run import ControlRun
from .texts import TEXT, Prepared
from .transformer import TransformerControl
from .word_maps import MappedRow, WordMaps


class TransformerRun(ControlRun):
    """All state of one run, see ``runs.Run``; the layout is found at the first call."""

    caches = True  # few-step models are run with them

    def __init__(
        self, plan: ControlPlan, sampling: Sampling, found: Sequence[tuple[str, dict]]
    ) -> None:
        super().__init__(plan, sampling, found)
        self.prepared: dict[int, Prepared] = {}
        self.memory: dict[tuple, Any] = {}
        self.replaced = replaced_blocks(sampling.guider.model_options["transformer_options"])

    def _sampler_sample(self, executor: Callable, guider: Any, *args: Any) -> Tensor:
        """SAMPLER_SAMPLE wrapper: prepare every prompt as the host prepared the source's."""
        _, extra_args, _, noise, latent_image, denoise_mask = args[:6]
        sampling = {
            "noise": noise, "latent_image": latent_image, "denoise_mask": denoise_mask,
            "device": guider.model_patcher.load_device, "seed": extra_args.get("seed"),
        }  # fmt: skip
        for number, (name, entry) in enumerate(entries(guider.conds)):
            if name in self.names and entry.get(CONTROL.mark) == self.plan.tag:
                model, texts = guider.inner_model, self.plan.texts
                self.prepared[number] = Prepared(model, entry, texts, name, sampling)
        with steered_by_prompt(guider.conds, self.prepared, self.plan.group):
            return super()._sampler_sample(executor, guider, *args)

    def label(self, conds: Mapping[str, list[dict]]) -> None:
        """Every row its label; texts are not filled up."""
        self.labels.label(conds)

    def _evaluate(
        self, executor: Callable, inputs: ModelInputs, rows: BatchRows, *unused: Any
    ) -> Tensor:
        ours = rows.of(self.ours)
        if inputs.c_crossattn is None or not len(ours):
            return inputs.evaluate(executor)
        labels = rows.labels[:, 0]
        numbers = sorted(set(labels[ours].tolist()))
        if len(numbers) == 1:
            return _Evaluation(self, executor, inputs, rows, numbers[0]).out()
        out = torch.empty_like(inputs.x)  # several of ours, as for areas: one after the other
        rest = torch.ones(len(rows), dtype=torch.bool)
        rest[ours] = False
        for number in numbers:
            own = ((labels == number) | rest).nonzero()[:, 0]
            rest[:] = False
            part = _Evaluation(self, executor, inputs.only(own), rows[own], number)
            out[own.to(out.device)] = part.out()
        return out

    def _check_reached(self) -> None:
        """Every call sees to it by itself, see ``TransformerControl.check``."""


class _Evaluation:
    """One model call of the host, as one call for like prompts and one for every other.

    number: of our conditioning in it. prompts: of its rows, None for a row that is not ours.
    """

    def __init__(
        self,
        run: TransformerRun,
        executor: Any,
        inputs: ModelInputs,
        rows: BatchRows,
        number: int,
    ) -> None:
        self.run, self.executor, self.inputs, self.rows = run, executor, inputs, rows
        self.plan = run.plan
        self.model = executor.class_obj
        self.step = run.step
        group = self.plan.group
        self.prompts = [
            row % group if own == number else None for own, row, _ in rows.labels.tolist()
        ]
        self.places = _places(rows, group)
        self.prepared = run.prepared[number]
        self.kept: dict = {}
        self.source_columns: list[Columns] = []

    def out(self) -> Tensor:
        """The denoised prediction of the whole batch."""
        together = set(self.prepared.together)
        apart = sorted({p for p in self.prompts if p is not None} - together)
        like = [i for i, prompt in enumerate(self.prompts) if prompt in together]
        foreign = [i for i, prompt in enumerate(self.prompts) if prompt is None]
        parts = []
        if self.prepared.tiled(self.inputs) and foreign:
            parts.append((foreign, self._only(foreign).evaluate(self.executor)))
            foreign = []
        first = sorted([*foreign, *like])
        parts.append((first, self._first(first, bool(apart))))
        for prompt in apart:
            rows = [i for i, own in enumerate(self.prompts) if own == prompt]
            parts.append((rows, self._other(rows, prompt)))
        if len(parts) == 1:
            return parts[0][1]
        out = parts[0][1].new_empty(len(self.rows), *parts[0][1].shape[1:])
        for rows, part in parts:
            out[rows] = part
        return out

    def _first(self, rows: list[int], keeps: bool) -> Tensor:
        """The call of everything that is not ours, the sources, and prompts of like shape."""
        inputs = self.inputs if len(rows) == len(self.rows) else self._only(rows)
        if self.prepared.tiled(inputs):
            inputs = self.prepared.alone(inputs, 0)
        prompts = [self.prompts[row] for row in rows]
        mine = [i for i, prompt in enumerate(prompts) if prompt is not None]
        chosen = [prompt for prompt in prompts if prompt is not None]
        inputs = self.prepared.substitute(inputs, mine, chosen)
        sources = {self.places[rows[i]]: i for i in mine if prompts[i] == 0}
        return self._call(inputs, rows, sources, keeps, from_kept=False, name=())

    def _other(self, rows: list[int], prompt: int) -> Tensor:
        """The call of one prompt that has a shape of its own."""
        inputs = self.prepared.alone(self._only(rows), prompt)
        places = [p for p, own in zip(self.places, self.prompts, strict=True) if own == 0]
        sources = {place: i for i, place in enumerate(places)}
        return self._call(inputs, rows, sources, keeps=False, from_kept=True, name=(prompt,))

    def _only(self, rows: list[int]) -> ModelInputs:
        """The call of some rows alone, each a chunk of its own: caches know a chunk by its uuid."""
        part, options = self.inputs.only(torch.tensor(rows)), self.inputs.options
        chunks = {}
        for name in ("uuids", "cond_or_uncond"):
            given = options.get(name) or ()
            if given and len(self.rows) % len(given) == 0:
                chunks[name] = [given[row * len(given) // len(self.rows)] for row in rows]
        if "uuids" in chunks:
            pairs = zip(chunks["uuids"], rows, strict=True)
            chunks["uuids"] = [uuid5(own, str(row)) for own, row in pairs]
        control = rows_of(self.inputs.control, rows, len(self.rows))
        return part._replace(options={**part.options, **chunks}, control=control)

    def _call(
        self, inputs: ModelInputs, rows: list[int], sources: dict, keeps: bool, from_kept: bool,
        name: tuple,
    ) -> Tensor:  # fmt: skip
        layout = self._layout(inputs, rows)
        order = list(sources)
        edited = [i for i, row in enumerate(rows) if self.prompts[row]]
        missing = [i for i in edited if self.places[rows[i]] not in sources]
        if missing:
            raise ValueError(
                "Source and edit were not evaluated in the same model call, but the edit looks at "
                "the source's attention. Another node splits the batch: remove it."
            )
        columns = {row: self._columns(row, layout) for row in rows if self.prompts[row] is not None}
        if not from_kept:
            self.source_columns = [columns[rows[i]] for i in sources.values()]
        pairs = [order.index(self.places[rows[i]]) for i in edited]
        asks = [
            self._ask(rows[i], self.source_columns[pair], columns[rows[i]])
            for i, pair in zip(edited, pairs, strict=True)
        ]
        size = (inputs.x.shape[-2], inputs.x.shape[-1])
        control = TransformerControl(
            layout, size, len(rows), torch.tensor(list(sources.values())),
            torch.tensor(edited, dtype=torch.long), torch.tensor(pairs, dtype=torch.long), asks,
            blocks=self.run.plan.blocks, kept=self.kept, from_kept=from_kept,
            keeps=keeps and self._later_edits(), memory=self.run.memory, name=name,
            maps=self._maps(inputs, layout, rows, columns, edited, pairs, asks),
        )  # fmt: skip
        control.install(inputs.options)
        out = inputs.evaluate(self.executor)
        control.follower.check()
        return out

    def _layout(self, inputs: ModelInputs, rows: list[int]) -> Layout:
        """Of the network for this text's length, found by one of our rows."""
        mine = next(i for i, row in enumerate(rows) if self.prompts[row] is not None)
        text = inputs.c_crossattn
        assert text is not None
        given = Inputs(inputs.x, inputs.t, inputs.c_concat, text, inputs.more)
        layout = layout_of(self.model, given.rows([mine]), inputs.options)
        check_blocks(self.plan.blocks, len(layout.reading))
        return layout

    def _columns(self, row: int, layout: Layout) -> Columns:
        """Where the row's prompt stands among the columns that the network reads."""
        prompt = self.prompts[row]
        assert prompt is not None
        count = self.plan.lengths[prompt]
        raw = self.plan.texts[prompt].cross_attn
        made = self.prepared.all[prompt][TEXT].cond
        key = "columns", prompt, made.shape[1]
        if key not in self.run.memory:
            behind = made.shape[1] - raw.shape[1]
            left = behind > 0 and torch.equal(made[:1, behind:].to(raw), raw)
            self.run.memory[key] = Columns(behind if left else 0, count, layout.tokens)
        return self.run.memory[key]

    def _ask(self, row: int, source: Columns, target: Columns) -> Ask:
        prompt = self.prompts[row]
        assert prompt
        key = "ask", self.step, prompt, source, target
        if key not in self.run.memory:
            steps = max(self.run.steps, 1)
            edit = self.plan.edits[prompt - 1]
            self.run.memory[key] = asked(self.plan.mode, edit, self.step, steps, source, target)
        return self.run.memory[key]

    def _later_edits(self) -> bool:
        """Whether the calls of other prompts will look at the sources at this step."""
        steps = max(self.run.steps, 1)
        if self.run.maps is not None:
            return True
        whole = Columns(0, 0, 0)
        for prompt in set(range(1, self.plan.group)) - set(self.prepared.together):
            edit, length = self.plan.edits[prompt - 1], self.plan.lengths
            source, target = (whole._replace(count=n, total=n) for n in (length[0], length[prompt]))
            if not asked(self.plan.mode, edit, self.step, steps, source, target).idle:
                return True
        return False

    def _maps(
        self, inputs: ModelInputs, layout: Layout, rows: list[int], columns: dict[int, Columns],
        edited: list[int], pairs: list[int], asks: Sequence[Ask],
    ) -> WordMaps | None:  # fmt: skip
        collector = self.run.map_collector(inputs)
        usual = replaced_blocks(inputs.options) == self.run.replaced
        if collector is None or not layout.raster or not usual:  # not the picture's own attention
            return None
        mapped = []
        for i, row in enumerate(rows):
            if self.prompts[row] is None:
                continue
            number = edited.index(i) if i in edited else None
            source = pairs[number] if number is not None else 0
            latent_row = self.rows.latent_rows[row]
            mapped.append(MappedRow(i, latent_row, columns[row], number, source))
        shape = self.run.labels.rows, self.plan.columns
        size = (inputs.x.shape[-2], inputs.x.shape[-1])
        words = sorted(
            {column for prompt in self.plan.prompts for w in prompt.words for column in w.columns}
        )
        return WordMaps(
            collector.store, layout, size, mapped, asks, self.source_columns, words, self.step,
            shape,
        )  # fmt: skip


def _places(rows: BatchRows, group: int) -> list[tuple[int, int, int]]:
    """For every row (conditioning, seed, how often it stood there before).

    Equal for a source and its edits, also where tiles repeat rows.
    """
    seen: dict[tuple[int, int], int] = {}
    places = []
    for number, row, _ in rows.labels.tolist():
        before = seen.get((number, row), 0)
        seen[number, row] = before + 1
        places.append((number, row // group, before))
    return places
