"""Which positions of the source and of an edited prompt belong to each other in a joint call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ....p2p_core.attention import Rows, as_rows
from ....p2p_core.joint_attention import JointEdit, Places
from ..families.record import Positions
from .modes import Ask

Side = tuple[Positions, Positions]  # of the queries and of the keys


@dataclass(frozen=True, eq=False)
class Pairing:
    """Positions of an edited prompt and of its source.

    edited, source, words: for the network's device. words: the key positions of the edited prompt's
    text. columns: the text's columns there; source_columns: those of the source. padding: how the
    other positions map (o_s, o_t), where there are not as many of them on both sides; they then
    count as text in ``edited`` and ``source``.
    """

    edited: Places
    source: Places
    words: Rows
    columns: Tensor
    source_columns: Tensor
    padding: Tensor | None

    def edit(self, asks: Sequence[Ask], device: torch.device, dtype: torch.dtype) -> JointEdit:
        """S, w and β of several edited rows at these positions."""
        maps = torch.stack([_map(ask) for ask in asks])
        maps = maps[:, self.source_columns][:, :, self.columns]
        weights = torch.stack([_weight(ask) for ask in asks])[:, self.columns]
        beta = torch.tensor([ask.inject for ask in asks])
        if self.padding is not None:
            more = self.padding.shape
            wide = F.pad(maps, (0, more[1], 0, more[0]))
            wide[:, maps.shape[1] :, maps.shape[2] :] = self.padding * beta[:, None, None]
            own = 1 - self.padding.sum(dim=0) * beta[:, None]
            maps, weights = wide, torch.cat([weights, own], dim=1)
        own_part = bool((weights != 0).any()) or not bool(beta.all())
        alike = bool(beta.all()) if len(set(beta.tolist())) == 1 else beta.to(device)
        return JointEdit(maps.to(device, dtype), weights.to(device, dtype), alike, own_part)


def _map(ask: Ask) -> Tensor:
    assert ask.source_map is not None
    return ask.source_map


def _weight(ask: Ask) -> Tensor:
    assert ask.target_weight is not None
    return ask.target_weight


def pairing(edited: Side, source: Side, device: torch.device) -> Pairing:
    """Pair the positions of one attention call.

    Raises ValueError for prompts whose padding puts the image elsewhere.
    """
    (queries, keys), (source_queries, source_keys) = edited, source
    padding, more = None, ([], [])
    others, source_others = _others(keys), _others(source_keys)
    if len(others) != len(source_others):
        _check_same_image(keys, source_keys)
        more = source_others.tolist(), others.tolist()
        padding = (source_others[:, None] == others[None]).float()
    here = _places(queries, keys, more[1], device)
    there = _places(source_queries, source_keys, more[0], device)
    words = as_rows(keys.text.tolist(), device)
    return Pairing(here, there, words, keys.columns, source_keys.columns, padding)


def _check_same_image(keys: Positions, source: Positions) -> None:
    if keys.length != source.length or not torch.equal(keys.image, source.image):
        raise ValueError(
            f"The source prompt has {len(source.text)} tokens and the edited one "
            f"{len(keys.text)}, which this model pads to different lengths, so that the picture "
            "stands at other positions. Make the prompts of more like length."
        )


def _places(queries: Positions, keys: Positions, more: list[int], device: torch.device) -> Places:
    text = torch.cat([keys.text, torch.tensor(more, dtype=torch.long)])
    rest = _beside(keys.length, text, keys.image)
    found = text, keys.image, rest, queries.image, _beside(queries.length, queries.image)
    return Places(*(as_rows(part.tolist(), device) for part in found))


def _others(keys: Positions) -> Tensor:
    return _beside(keys.length, keys.text, keys.image)


def _beside(length: int, *positions: Tensor) -> Tensor:
    """All positions but these."""
    free = torch.ones(length, dtype=torch.bool)
    free[torch.cat(positions)] = False
    return free.nonzero()[:, 0]
