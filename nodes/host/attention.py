"""Attention control inside one sampling run of a UNet.

Nothing is patched on the model: while the run lasts, an APPLY_MODEL wrapper adds our patches to the
call's own transformer_options. It binds late, so it finds and keeps whatever other packs put on the
same layers, in whichever order the nodes stand in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence, Set
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import comfy.ldm.modules.attention as host_attention
import torch
from torch import Tensor

from ...p2p_core.attention import (
    CrossEdit,
    Rows,
    cross_attention_change,
    edit_rows,
    edited_cross_attention,
    inject_self_attention,
)
from ...p2p_core.maps import MapStore, attention_map, edited_map
from ...p2p_core.schedule import step_index
from .models import Layer
from .plan import ControlPlan
from .skipping import may_leave_out, needed_rows, take


class _Call(NamedTuple):
    """What one model call asks of the attention layers; None where they stay as they are.

    rows: all rows of the tagged chunks, source rows included, one chunk after the other.
    """

    step: int
    chunks: int
    rows: Tensor
    cross: CrossEdit | None
    self_rows: Rows | None


class _Layout(NamedTuple):
    """Where the tagged chunks stand in a model batch.

    offsets: their first rows. groups: pictures in each. needed: the rows to evaluate, None for all.
    """

    offsets: tuple[int, ...]
    groups: int
    needed: Tensor | None = None


class AttentionControl:
    """Applies a plan's edits in one run, and notes which layers it reached.

    chunks: uuids of the conditioning that is edited. maps: where coarse maps are collected, if
    anyone wants them. clean: the denoised source rows of a run that knows them, (groups, C, h, w);
    they are then not evaluated without the prompt.
    """

    def __init__(
        self,
        plan: ControlPlan,
        sigmas: Sequence[float],
        size: tuple[int, int],
        chunks: Set[UUID],
        maps: MapStore | None,
        clean: Tensor | None = None,
    ) -> None:
        self.plan = plan
        self.edits = plan.edits
        self.sigmas = sigmas
        self.chunks = chunks
        self.maps = maps
        self.clean = clean
        self.map_layers = plan.map_layers(size) if maps is not None else set()
        self.self_attention_limit = plan.limit_for(size)
        self.reached: set[Layer] = set()
        self._calls: dict[Hashable, _Call] = {}

    def apply_model(
        self,
        executor: Callable,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The APPLY_MODEL wrapper: edits the tagged chunks of this call."""
        options = dict(transformer_options or {})
        layout = self._layout(options, x, control)
        if layout.offsets and c_crossattn is not None:
            self._install(options, self._call(options, layout, x.device, c_crossattn.shape[1]))
        if layout.needed is None:
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        needed = layout.needed.to(x.device)
        out = self._known_denoised(x)
        if len(needed):
            part = partial(take, needed=needed, rows=len(x))
            inputs = (part(x), part(t), part(c_concat), part(c_crossattn), None, options)
            out[needed] = executor(*inputs, **{name: part(v) for name, v in kwargs.items()})
        return out

    def check_reached(self) -> None:
        """Raise ValueError if an edit should have acted on a layer where it did not.

        A patch that does not fire would leave the picture unedited without a word.
        """
        if not self.reached:
            raise ValueError(
                "The edited prompt was never evaluated in this run, so nothing was edited. Remove "
                "what limits the controller's positive to other steps, or sample those steps."
            )
        missed = [layer for layer in self.plan.layers if layer not in self.reached]
        if missed and self._ever_active():
            raise ValueError(
                f"The edit did not reach {len(missed)} of {len(self.plan.layers)} attention layers "
                f"({', '.join(f'{n} {i}.{j}' for n, i, j in missed[:4])} …), so the picture is not "
                "what was asked for. Another node replaces these layers: remove it or bypass it."
            )

    def _ever_active(self) -> bool:
        steps = len(self.sigmas) - 1
        return any(edit.at(i, steps).cross_attention for edit in self.edits for i in range(steps))

    def _layout(self, options: dict, x: Tensor, control: Any) -> _Layout:
        """The tagged chunks in the batch x, after rows that need no evaluation were left out."""
        uuids = options.get("uuids", ())
        if not uuids:
            return _Layout((), 0)
        size = len(x) // len(uuids)
        offsets = [i * size for i, uuid in enumerate(uuids) if uuid in self.chunks]
        groups = size // self.plan.group
        whole = self.clean is not None and x.shape[-2:] == self.clean.shape[-2:]
        if not (whole and may_leave_out(options, control)):
            return _Layout(tuple(offsets), groups)
        needed = needed_rows(uuids, len(x), self.chunks, self.plan.group)
        moved = torch.searchsorted(needed, torch.tensor(offsets))
        return _Layout(tuple(moved.tolist()), groups, needed)

    def _known_denoised(self, x: Tensor) -> Tensor:
        """A denoised batch like x whose source rows are right; the others are to be filled in."""
        assert self.clean is not None
        rows = self.clean.to(x).repeat_interleave(self.plan.group, dim=0)
        return rows.repeat(len(x) // len(rows), 1, 1, 1)

    def _call(self, options: dict, layout: _Layout, device: torch.device, tokens: int) -> _Call:
        """This call's edit; the last one is kept, for samplers that stay on a step."""
        step = step_index(float(options["sigmas"].max()), self.sigmas)
        offsets, groups = layout.offsets, layout.groups
        key = (step, tokens, offsets, groups, device)
        if key not in self._calls:
            chunks = [edit_rows(groups, len(self.edits), offset) for offset in offsets]
            edited = Rows(*(torch.cat(part) for part in zip(*chunks, strict=True)))
            size = groups * (1 + len(self.edits))
            rows = torch.cat([torch.arange(offset, offset + size) for offset in offsets])
            edits = self._prepare(step, tokens, edited, device)
            self._calls = {key: _Call(step, len(offsets), rows.to(device), *edits)}
        return self._calls[key]

    def _prepare(
        self, step: int, tokens: int, rows: Rows, device: torch.device
    ) -> tuple[CrossEdit | None, Rows | None]:
        """How cross- and self-attention of these rows are edited at a step."""
        if not self.edits:
            return None, None
        steps = len(self.sigmas) - 1
        states = [edit.tiled(tokens).at(step, steps) for edit in self.edits]
        states *= len(rows.edited) // len(states)
        cross = self_rows = None
        if any(state.cross_attention for state in states):
            cross = CrossEdit(
                rows.to(device),
                torch.stack([state.source_map for state in states]).to(device),
                torch.stack([state.target_weight for state in states]).to(device),
            )
        injected = torch.tensor([state.self_attention for state in states])
        if injected.any():
            self_rows = Rows(rows.source[injected], rows.edited[injected]).to(device)
        return cross, self_rows

    def _install(self, options: dict, call: _Call) -> None:
        """Put our patches into this call's options, around those that are there already."""
        patches = dict(options.get("patches", {}))
        patches["attn1_patch"] = [partial(self._attn1, call), *patches.get("attn1_patch", [])]
        replace = dict(options.get("patches_replace", {}))
        previous = replace.get("attn2", {})
        ours = {
            layer: partial(self._attn2, call, previous.get(layer, previous.get(layer[:2])))
            for layer in self.plan.layers
        }
        replace["attn2"] = {**previous, **ours}
        options["patches"], options["patches_replace"] = patches, replace

    def _attn1(self, call: _Call, n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
        """Before projection: queries and keys of the edited rows become the source's."""
        if call.self_rows is None or n.shape[1] > self.self_attention_limit:
            return n, context, value
        queries = inject_self_attention(n, call.self_rows)
        keys = queries if context is n else inject_self_attention(context, call.self_rows)
        return queries, keys, value

    def _attn2(
        self, call: _Call, previous: Callable | None, q: Tensor, k: Tensor, v: Tensor, extra: dict
    ) -> Tensor:
        """Instead of the layer's own attention, or around another pack's replacement."""
        self.reached.add(_layer(extra))
        self._collect_maps(call, q, k, extra)
        attend = partial(_host_attention, extra)
        if call.cross is None:
            return attend(q, k, v) if previous is None else previous(q, k, v, extra)
        if previous is None:
            return edited_cross_attention(attend, q, k, v, call.cross)
        change = cross_attention_change(attend, q, k, v, call.cross)
        return previous(q, k, v, extra).index_add(0, call.cross.rows.edited, change)

    def _collect_maps(self, call: _Call, q: Tensor, k: Tensor, extra: dict) -> None:
        """Add this layer's maps, edited, to the store: one row a picture, one column a token."""
        if self.maps is None or _layer(extra) not in self.map_layers:
            return
        height, width = self.maps.size
        if q.shape[1] != height * width:
            if self.plan.blends:
                raise ValueError(
                    "A local blend needs a prompt that covers the whole picture, but the "
                    "controller's positive was limited to an area. Remove the area or the blend."
                )
            self.maps = None  # a record of parts of the picture would mislead
            return
        maps = attention_map(q[call.rows], k[call.rows], extra["n_heads"])
        if call.cross is not None:
            groups = len(call.rows) // (1 + len(self.edits))
            local = edit_rows(groups, len(self.edits)).to(maps.device)
            maps = edited_map(maps, call.cross._replace(rows=local))
        maps = maps.unflatten(0, (call.chunks, -1)).sum(dim=0)
        self.maps.add(call.step, maps.unflatten(-1, (-1, self.plan.tokens)).sum(dim=-2))


def _layer(extra: dict) -> Layer:
    name, number = extra["block"]
    return Layer(name, number, extra["block_index"])


def _host_attention(extra: dict, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attention function that the host would have used in this layer. (B, Q, heads * C)"""
    return host_attention.optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )
