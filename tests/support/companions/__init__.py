"""What people wire beside an edit: the host's own nodes, and stand-ins of other packs' patches."""

from __future__ import annotations

from . import batches, conditionings, guidance, network, sampling, weights
from .companion import Companion

COMPANIONS: dict[str, Companion] = {
    companion.name: companion
    for room in (weights, guidance, network, conditionings, batches, sampling)
    for companion in room.COMPANIONS
}
