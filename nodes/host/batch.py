"""Whose row is whose in a model call.

The host stacks conditionings into one model batch, and other packs split it, repeat it for tiles or
evaluate parts of it. So every conditioning of our runs carries labels, one a row, that go through
all of this like its text. What came without its labels is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import comfy.utils
import torch
from comfy.conds import CONDRegular
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor

from .runs import OWN_KEYS, Conds, Sampling, entries

LABELS = "p2p_rows"  # among a conditioning's model inputs, and in transformer_options
ROW_READERS = ("patches", "patches_replace", "optimized_attention_override")


@dataclass(frozen=True, eq=False)
class BatchRows:
    """The rows of one model call. labels: (B, 3) of (conditioning, row of the latent, columns)."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def key(self) -> bytes:
        """Equal for calls of equal rows."""
        return self.labels.numpy().tobytes()

    @property
    def latent_rows(self) -> list[int]:
        """For every row, the row of the sampler's latent that it belongs to."""
        return self.labels[:, 1].tolist()

    @property
    def columns(self) -> list[int]:
        """For every row, the columns of its own text."""
        return self.labels[:, 2].tolist()

    def of(self, conditionings: Iterable[int], or_where: Tensor | None = None) -> Tensor:
        """Positions of the rows of some conditionings, (n,), in the order of the batch.

        or_where: (B,) bool, rows that count as well.
        """
        chosen = torch.isin(self.labels[:, 0], torch.tensor(sorted(conditionings)))
        return (chosen if or_where is None else chosen | or_where).nonzero()[:, 0]

    def __getitem__(self, positions: Tensor) -> BatchRows:
        return BatchRows(self.labels[positions])


class _Labels(CONDRegular):
    """Labels stay on the CPU, where they are read at every call."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> _Labels:
        return _Labels(comfy.utils.repeat_to_batch_size(self.cond, batch_size))


class RowLabels:
    """Labels the conditionings of one run, and reads them off its model calls.

    rows: of the sampler's latent.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.rows = len(sampling.noise)
        self._wrapper = sampling.guider.model_options.get("model_function_wrapper")
        self._by_uuid: dict[UUID, Tensor] = {}

    def label(self, conds: Conds, lengths: dict[int, Sequence[int]] | None = None) -> None:
        """Give every row its label. To be called once the host has prepared the conditionings.

        lengths: columns of each row's own text, for the conditionings (by number) whose rows were
        filled up to a common length.
        """
        for number, (_, entry) in enumerate(entries(conds)):
            inputs = entry["model_conds"]
            if LABELS not in inputs:
                text = inputs.get("c_crossattn")
                columns = 0 if text is None else text.cond.shape[1]
                labels = torch.tensor([[number, row, columns] for row in range(self.rows)])
                entry["model_conds"] = {**inputs, LABELS: _Labels(labels)}
            if lengths and number in lengths:
                entry["model_conds"][LABELS].cond[:, 2] = torch.tensor(lengths[number])
            if entry["uuid"] in self._by_uuid:  # the host's copy of an entry with an area
                entry["uuid"] = uuid4()
            self._by_uuid[entry["uuid"]] = entry["model_conds"][LABELS].cond

    def read(self, inputs: ModelInputs) -> BatchRows | None:
        """The rows of a model call; None for a call that is not of this run's conditionings.

        Moves the labels from the network's inputs into its options, for our runs further in. Raises
        ValueError for a batch that cannot be accounted for.
        """
        x, options = inputs.x, inputs.options
        labels = inputs.more.pop(LABELS, None)
        if labels is None:
            labels = options.get(LABELS)
        if labels is None:
            uuids = options.get("uuids", ())
            if not uuids or not all(uuid in self._by_uuid for uuid in uuids):
                return None
            labels = torch.cat([self._by_uuid[uuid] for uuid in uuids])
        options[LABELS] = labels = labels.cpu()
        if len(labels) != len(x):
            raise ValueError(
                f"Another node changed the model's batch from {len(labels)} rows to {len(x)}"
                f"{self._named()}, so source and edit cannot be told apart in it. Nodes that "
                "evaluate the picture in tiles, or prompts one by one, do so: remove that node."
            )
        return BatchRows(labels)

    def _named(self) -> str:
        """Who it may have been."""
        return f" (a wrapper of {origin(self._wrapper)})" if self._wrapper is not None else ""


def origin(function: Any) -> str:
    """Where a foreign function comes from, as its author calls it."""
    function = getattr(function, "func", function)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', type(function).__module__)}.{name}"


class ModelInputs(NamedTuple):
    """What the host gives a network in one call, as copies that may be changed.

    x: (B, C, …), t: (B,), c_crossattn: (B, T, D). options: the call's transformer_options. more:
    what the family reads besides, by name.
    """

    x: Tensor
    t: Tensor
    c_concat: Tensor | None
    c_crossattn: Tensor | None
    control: Any
    options: dict[str, Any]
    more: dict[str, Any]

    def evaluate(self, executor: Callable) -> Tensor:
        """The network's denoised prediction, (B, C, …)."""
        return executor(*self[:6], **self.more)

    def only(self, rows: Tensor) -> ModelInputs:
        """The same call for some rows of the batch, without the control of a ControlNet."""
        part = partial(_rows_of, rows=rows, batch=len(self.x))
        x, t, c_concat, c_crossattn = map(part, self[:4])
        options = {**self.options, LABELS: part(self.options[LABELS])}
        more = {name: part(value) for name, value in self.more.items()}
        return ModelInputs(x, t, c_concat, c_crossattn, None, options, more)


def model_inputs(
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict | None = None,
    **more: Any,
) -> ModelInputs:
    """Read the arguments of an APPLY_MODEL wrapper, the host's interface."""
    options = dict(transformer_options or {})
    return ModelInputs(x, t, c_concat, c_crossattn, control, options, more)


def may_leave_out(inputs: ModelInputs) -> bool:
    """Whether nothing but the network itself sees the rows: others' patches may count them."""
    wrappers = inputs.options.get("wrappers", {})
    foreign = set(wrappers.get(WrappersMP.APPLY_MODEL, {})) - OWN_KEYS - {COMPILE_KEY}
    foreign |= set(wrappers.get(WrappersMP.DIFFUSION_MODEL, {}))
    readers = any(inputs.options.get(key) for key in ROW_READERS)
    return inputs.control is None and not foreign and not readers


def _rows_of(value: Any, rows: Tensor, batch: int) -> Any:
    """The chosen rows of what has a row for each in the batch."""
    if isinstance(value, list):
        return [_rows_of(part, rows, batch) for part in value]
    if isinstance(value, Tensor) and value.ndim and len(value) == batch:
        return value[rows.to(value.device)]
    return value
