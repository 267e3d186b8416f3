"""Some rows' part in one attention call of a transformer, for others to look at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ....p2p_core.kept import taken
from ..families.record import Positions


class Kept(NamedTuple):
    """Queries, keys and mask of an attention call, and the positions in them."""

    q: Tensor
    k: Tensor
    mask: Tensor | None
    queries: Positions
    keys: Positions

    def on(self, device: torch.device) -> Kept:
        """The same on a device."""
        mask = None if self.mask is None else taken(self.mask, device)
        return self._replace(q=taken(self.q, device), k=taken(self.k, device), mask=mask)
