"""ControlNets beside edits: every picture's rows have its hint, and read each its own prompt.

The host asks a ControlNet before it calls the model, when every row of a transformer's batch still
holds the source's prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..batch import LABELS, ModelInputs
from ..runs import entries
from .texts import CONCAT, TEXT, Conds, Prepared

CONTROL_NET, OPTIONS = "control", "transformer_options"


@contextmanager
def hints_by_picture(conds: Mapping[str, list[dict]], group: int) -> Iterator[None]:
    """While it lasts, several hint pictures go each to a source and its edits, not to single rows.

    group: rows of one picture.
    """
    before = []
    for net in _chained([entry[CONTROL_NET] for entry in _steered(conds)]):
        hints = getattr(net, "cond_hint_original", None)
        masks = getattr(net, "extra_concat_orig", [])
        if isinstance(hints, Tensor) and group > 1:
            before.append((net, hints, masks))
            repeated = [_by_picture(part, group) for part in masks]
            net.cond_hint_original, net.extra_concat_orig = _by_picture(hints, group), repeated
            net.cond_hint = None
    try:
        yield
    finally:
        for net, hints, masks in before:
            net.cond_hint_original, net.extra_concat_orig = hints, masks
            net.cond_hint = None


def _chained(nets: Sequence[Any]) -> list[Any]:
    """ControlNets and those that they build upon, each once."""
    found: dict[int, Any] = {}
    for net in nets:
        net = net.net if isinstance(net, PromptwiseControlNet) else net
        while net is not None and id(net) not in found:
            found[id(net)] = net
            net = getattr(net, "previous_controlnet", None)
    return list(found.values())


def _by_picture(pictures: Tensor, group: int) -> Tensor:
    return pictures.repeat_interleave(group, dim=0) if len(pictures) > 1 else pictures


@contextmanager
def steered_by_prompt(
    conds: Mapping[str, list[dict]], prepared: Mapping[int, Prepared], group: int
) -> Iterator[None]:
    """While it lasts, ControlNets of the guider's conditionings see every row's own prompt."""
    nets = {id(entry[CONTROL_NET]): entry[CONTROL_NET] for entry in _steered(conds)}
    ours = {key: PromptwiseControlNet(net, prepared, group) for key, net in nets.items()}
    try:
        for entry in _steered(conds):  # shared by positive and negative, else the host parts them
            entry[CONTROL_NET] = ours[id(entry[CONTROL_NET])]
        yield
    finally:
        for entry in _steered(conds):
            if isinstance(entry[CONTROL_NET], PromptwiseControlNet):
                entry[CONTROL_NET] = entry[CONTROL_NET].net


def _steered(conds: Mapping[str, list[dict]]) -> list[dict]:
    return [entry for _, entry in entries(conds) if entry.get(CONTROL_NET) is not None]


class PromptwiseControlNet:
    """A ControlNet that is asked once for all prompts of like shape, and once for every other.

    Always for the whole batch, since its hints, and other packs' ControlNets, may count rows.
    prepared: the prompts of our conditionings, by number. group: rows of one seed.
    """

    def __init__(self, net: Any, prepared: Mapping[int, Prepared], group: int) -> None:
        self.net, self.prepared, self.group = net, prepared, group

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)

    def get_instance_for_device(self, device: torch.device) -> PromptwiseControlNet:
        own = self.net.get_instance_for_device(device)
        return PromptwiseControlNet(own, self.prepared, self.group)

    def get_control(self, x: Tensor, t: Tensor, cond: Conds, *args: Any) -> Any:
        """What the host adds to the network's layers, from a model call's inputs ``cond``."""
        labels = cond.get(LABELS)
        if labels is None or len(labels) != len(x):
            return self.net.get_control(x, t, cond, *args)
        kept = {name: cond[name] for name in (OPTIONS, LABELS, CONCAT) if name in cond}
        more = {name: value for name, value in cond.items() if name not in (TEXT, *kept)}
        inputs = ModelInputs(x, t, cond.get(CONCAT), cond.get(TEXT), None, {}, more)
        control = None
        for rows, part in self._by_prompt(inputs, labels.tolist()):
            given = {**part.more, **kept, TEXT: part.c_crossattn}
            found = self.net.get_control(x, t, given, *args)
            control = found if control is None else _with_rows(control, found, rows, len(x), {})
        return control

    def _by_prompt(
        self, inputs: ModelInputs, labels: list[list[int]]
    ) -> Iterator[tuple[list[int], ModelInputs]]:
        """Rows, and inputs under which theirs are right; the first are right for all others."""
        first, others = inputs, []
        for number, prepared in self.prepared.items():
            prompts = {
                row: latent_row % self.group
                for row, (own, latent_row, _) in enumerate(labels)
                if own == number
            }
            like = [row for row, prompt in prompts.items() if prompt in prepared.together]
            chosen = [prompts[row] for row in like]
            if like and prepared.tiled(inputs):
                alone = prepared.alone(inputs, 0)
                others.append((like, prepared.substitute(alone, like, chosen)))
            else:
                first = prepared.substitute(first, like, chosen)
            for prompt in sorted(set(prompts.values()) - set(prepared.together)):
                rows = [row for row, own in prompts.items() if own == prompt]
                others.append((rows, prepared.alone(inputs, prompt)))
        yield list(range(len(labels))), first
        yield from others


def _with_rows(value: Any, other: Any, rows: list[int], count: int, made: dict) -> Any:
    """A control with some of another's rows; layers that share a tensor go on sharing it."""
    if isinstance(value, dict):
        return {key: _with_rows(part, other[key], rows, count, made) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        pairs = zip(value, other, strict=True)
        return [_with_rows(part, theirs, rows, count, made) for part, theirs in pairs]
    if not isinstance(value, Tensor) or not value.ndim or len(value) != count:
        return value
    key = id(value), id(other)
    if key not in made:
        index = torch.tensor(rows, device=value.device)
        made[key] = value.index_copy(0, index, other[index])
    return made[key]
