"""One sampling run of a transformer under attention control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any
from uuid import uuid5

import torch
from torch import Tensor

from ....p2p_core.edits import PromptEdit
from ....p2p_core.kept import KeptCall, taken
from ..batch import BatchRows, ModelInputs
from ..blocks import check_blocks
from ..families.following import replaced_blocks
from ..families.inputs import Inputs, rows_of
from ..families.layouts import layout_of
from ..families.record import Layout
from ..kept.keeping import Recorder
from ..runs import CONTROL, Sampling, entries
from .control_nets import steered_by_prompt
from .modes import Ask, Columns, asked, looks
from .plan import ControlPlan
from .run import ControlRun
from .texts import TEXT, Prepared
from .transformer import TransformerControl, is_edited
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

    def looked_at(self) -> Set[str]:
        """What edits and maps need of the source's attention at this step: KeptCall's fields."""
        wanted = {"joint": self.looks(self.plan.edits), "maps": self.maps is not None}
        return {name for name, needed in wanted.items() if needed}

    def looks(self, edits: Sequence[PromptEdit]) -> bool:
        """Whether any of these edits looks at the source at this step."""
        steps = max(self.steps, 1)
        return any(looks(self.plan.mode, edit, self.step, steps) for edit in edits)

    def _evaluate(
        self, executor: Callable, inputs: ModelInputs, rows: BatchRows, alone: bool,
        kept: KeptCall | None = None,
    ) -> Tensor:  # fmt: skip
        ours = rows.of(self.ours)
        if inputs.c_crossattn is None or not len(ours):
            return inputs.evaluate(executor)
        labels = rows.labels[:, 0]
        numbers = sorted(set(labels[ours].tolist()))
        if len(numbers) == 1:
            return _Evaluation(self, executor, inputs, rows, numbers[0], alone, kept).out()
        out = torch.empty_like(inputs.x)  # several of ours, as for areas: one after the other
        rest = torch.ones(len(rows), dtype=torch.bool)
        rest[ours] = False
        for number in numbers:
            own = ((labels == number) | rest).nonzero()[:, 0]
            rest[:] = False
            part = _Evaluation(self, executor, inputs.only(own), rows[own], number, alone)
            out[own.to(out.device)] = part.out()
        return out

    def _check_reached(self) -> None:
        """Every call sees to it by itself, see ``TransformerControl.check``."""


class _Evaluation:
    """One model call of the host, as one call for like prompts and one for every other.

    number: of our conditioning in it. prompts: of its rows, None for a row that is not ours.
    alone: whether nobody else looks at the rows. shelved: an earlier run's sources, which are not
    among the rows then.
    """

    def __init__(
        self, run: TransformerRun, executor: Any, inputs: ModelInputs, rows: BatchRows, number: int,
        alone: bool, shelved: KeptCall | None = None,
    ) -> None:  # fmt: skip
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
        self.number, self.alone, self.shelved = number, alone, shelved
        self.kept: dict = {}
        self.source = self._columns(0)

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
        if like:
            parts.append((first, self._first(first, bool(apart))))
        elif first:
            parts.append((first, self._only(first).evaluate(self.executor)))
        for prompt in apart:
            rows = [i for i, own in enumerate(self.prompts) if own == prompt]
            parts.append((rows, self._other(rows, prompt)))
        self._add_shelved_maps()
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
        sources = [i for i in mine if prompts[i] == 0]
        return self._call(inputs, rows, sources, keeps, name=())

    def _other(self, rows: list[int], prompt: int) -> Tensor:
        """The call of one prompt that has a shape of its own."""
        inputs = self.prepared.alone(self._only(rows), prompt)
        return self._call(inputs, rows, [], keeps=False, name=(prompt,))

    def _sources(self) -> list[tuple[int, int, int]]:
        """The places of the sources, in their order among those of this call or the shelf."""
        if self.shelved is not None:
            count = self.run.labels.rows // self.plan.group
            return [(self.number, seed, 0) for seed in range(count)]
        return [p for p, own in zip(self.places, self.prompts, strict=True) if own == 0]

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
        self, inputs: ModelInputs, rows: list[int], sources: list[int], keeps: bool, name: tuple
    ) -> Tensor:
        """A call of some rows. sources: those of the sources among them."""
        layout = self._layout(inputs, rows)
        order = {place: i for i, place in enumerate(self._sources())}
        edited = [i for i, row in enumerate(rows) if self.prompts[row]]
        asking = {prompt for i in edited if (prompt := self.prompts[rows[i]])}
        looked_at = self.run.looks([self.plan.edits[prompt - 1] for prompt in asking])
        if looked_at and any(self.places[rows[i]] not in order for i in edited):
            raise ValueError(
                "Source and edit were not evaluated in the same model call, but the edit looks at "
                "the source's attention. Another node splits the batch: remove it."
            )
        columns = {
            row: self._columns(prompt) for row in rows if (prompt := self.prompts[row]) is not None
        }
        pairs = [order.get(self.places[rows[i]], 0) for i in edited]
        asks = [self._ask(rows[i], columns[rows[i]]) for i in edited]
        size = (inputs.x.shape[-2], inputs.x.shape[-1])
        maps = self._maps(inputs, layout, rows, columns, edited, pairs, asks)
        recorder = self._recorder(inputs, layout, maps) if sources else None
        keeps_joint = recorder is not None and recorder.keeps_joint
        control = TransformerControl(
            layout, size, len(rows), sources, edited, pairs, asks, self.run.plan.blocks,
            kept=self._kept(), looked_at=looked_at,
            keeps=keeps and bool(sources) and self._later_edits(), maps=maps,
            recorder=recorder if keeps_joint else None, memory=self.run.memory, name=name,
        )  # fmt: skip
        if control.idle:
            return inputs.evaluate(self.executor)
        control.install(inputs.options)
        out = inputs.evaluate(self.executor)
        control.follower.check()
        if recorder is not None and maps is not None and maps.total is not None:
            chosen = [row.latent_row for row in maps.rows if row.edit is None]
            recorder.maps(maps.total[chosen][..., : self.source.count])
        return out

    def _kept(self) -> dict:
        """The sources' attention where they are not in the batch."""
        if self.shelved is not None:
            return self.shelved.joint or {}
        return self.kept

    def _recorder(
        self, inputs: ModelInputs, layout: Layout, maps: WordMaps | None
    ) -> Recorder | None:
        """Who keeps this call's sources for later runs, which takes what is told before."""
        if self.run.keeping is None:
            return None
        model = self.model
        size = (inputs.x.shape[-2], inputs.x.shape[-1])
        item = (model.manual_cast_dtype or model.get_dtype()).itemsize
        seeds = self.run.labels.rows // self.plan.group
        calls = [
            call
            for call in layout.calls
            if maps is not None and maps.wants(call) or is_edited(layout, call, self.plan.blocks)
        ]
        self.run.keeping.size_up(
            lambda: seeds * item * sum(layout.values(call, size) for call in calls)
        )
        return self.run.recorder(self.alone)

    def _add_shelved_maps(self) -> None:
        """Where the words of sources looked that are not in the batch."""
        collector = self.run.maps
        if self.shelved is None or self.shelved.maps is None or collector is None:
            return
        maps = taken(self.shelved.maps, self.inputs.x.device)
        collector.store.add(self.step, collector.of_sources(maps, self.plan.group))

    def _layout(self, inputs: ModelInputs, rows: list[int]) -> Layout:
        """Of the network for this text's length, found by one of our rows."""
        mine = next(i for i, row in enumerate(rows) if self.prompts[row] is not None)
        text = inputs.c_crossattn
        assert text is not None
        given = Inputs(inputs.x, inputs.t, inputs.c_concat, text, inputs.more)
        layout = layout_of(self.model, given.rows([mine]), inputs.options)
        check_blocks(self.plan.blocks, len(layout.reading))
        return layout

    def _columns(self, prompt: int) -> Columns:
        """Where a prompt stands among the columns that the network reads."""
        count = self.plan.lengths[prompt]
        raw = self.plan.texts[prompt].cross_attn
        made = self.prepared.all[prompt][TEXT].cond
        key = "columns", prompt, made.shape[1]
        if key not in self.run.memory:
            behind = made.shape[1] - raw.shape[1]
            left = behind > 0 and torch.equal(made[:1, behind:].to(raw), raw)
            self.run.memory[key] = Columns(behind if left else 0, count, made.shape[1])
        return self.run.memory[key]

    def _ask(self, row: int, target: Columns) -> Ask:
        prompt = self.prompts[row]
        assert prompt
        steps = max(self.run.steps, 1)
        edit = self.plan.edits[prompt - 1]
        held = edit.open_windows(self.step, steps), looks(self.plan.mode, edit, self.step, steps)
        key = "ask", prompt, held, self.source, target
        if key not in self.run.memory:
            self.run.memory[key] = asked(
                self.plan.mode, edit, self.step, steps, self.source, target
            )
        return self.run.memory[key]

    def _later_edits(self) -> bool:
        """Whether the calls of other prompts will look at the sources at this step."""
        later = set(range(1, self.plan.group)) - set(self.prepared.together)
        return self.run.maps is not None or self.run.looks([self.plan.edits[p - 1] for p in later])

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
            collector.store, layout, size, mapped, asks, self.source, words, self.step, shape,
            self.run.memory,
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
