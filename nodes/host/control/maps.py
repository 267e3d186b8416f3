"""Collecting one run's attention maps, at one coarse resolution."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ....p2p_core.attention import chosen, with_rows
from ....p2p_core.maps import MapStore, attention_map, edited_map
from ..families.unet import Layer
from .calls import Call


class MapCollector:
    """Adds the maps of our rows to a store: one row a picture of the latent, one column a token.

    layers: those of the coarse resolution. rows: of the latent. columns: of the longest prompt.
    """

    def __init__(self, store: MapStore, layers: Set[Layer], rows: int, columns: int) -> None:
        self.store, self.layers, self.rows, self.columns = store, layers, rows, columns
        self._call: Tensor | None = None  # the sum over the layers of the call that is under way

    def finish(self, call: Call) -> Tensor | None:
        """After a model call: put its sum into the store; returns it, by our rows of the call.

        Not from within the network, which would be compiled anew for every step.
        """
        total, self._call = self._call, None
        if total is None:
            return None
        maps = total
        if call.latent_rows != tuple(range(self.rows)):
            every = maps.new_zeros(self.rows, *maps.shape[1:])
            maps = every.index_add(0, torch.tensor(call.latent_rows, device=maps.device), maps)
        self.store.add(call.step, maps)
        return total

    def of_sources(self, kept: Tensor, group: int) -> Tensor:
        """The maps of the sources, (seeds, h * w, T_s), among those of all rows, 0 elsewhere."""
        maps = kept.new_zeros(self.rows, kept.shape[1], self.columns)
        maps[::group, :, : kept.shape[-1]] = kept
        return maps

    def add_kept(self, call: Call, kept: Tensor, group: int) -> None:
        """Add the maps of sources that are not in the batch, and what the edits take from them.

        kept: the sum over the layers, (seeds, h * w, T_s), with which an edit commutes too.
        """
        maps = self.of_sources(kept, group)
        if call.cross is not None:
            added = (kept[call.among.source] @ call.cross.source_map)[..., : self.columns]
            rows = chosen(call.latent_rows, call.among.edited)
            maps[list(rows), :, : added.shape[-1]] += added
        self.store.add(call.step, maps)

    def collect(
        self, call: Call, q: Tensor, k: Tensor, layer: Layer, extra: dict[str, Any]
    ) -> None:
        """Add a layer's maps, with its edits, to the call's. q: (B, Q, C); k: (B, T, C)."""
        if layer not in self.layers:
            return
        maps = self._edited(call, q, k, extra["n_heads"])[..., : self.columns]
        maps = self._sized(maps, extra["activations_shape"])
        self._call = maps if self._call is None else self._call + maps

    def _edited(self, call: Call, q: Tensor, k: Tensor, heads: int) -> Tensor:
        """The maps of our rows as the edit leaves them, (rows, Q, T)."""
        lengths = call.lengths and chosen(call.lengths, call.controlled)
        maps = attention_map(q[call.controlled], k[call.controlled], heads, lengths)
        if call.cross is None:
            return maps
        if call.kept:  # their part is added once for all layers
            own = maps[call.among.edited] * call.cross.target_weight[:, None]
            return with_rows(maps, call.among.edited, own)
        source_maps = maps[call.among.source][..., : call.source_columns]
        return edited_map(maps, source_maps, call.cross._replace(edited=call.among.edited))

    def _sized(self, maps: Tensor, activations: tuple[int, ...]) -> Tensor:
        """(rows, Q, T) at the store's resolution; other nodes shrink a network's insides."""
        height, width = activations[-2:]
        if maps.shape[1] != height * width:
            raise ValueError(
                f"An attention layer has {maps.shape[1]} image positions where its picture has "
                f"{height}x{width}, so its maps cannot be laid over the picture. Another node "
                "merges or splits them: remove it, or the local blend and P2P Attention Maps."
            )
        if (height, width) == self.store.size:
            return maps
        grid = rearrange(maps, "b (h w) t -> b t h w", h=height)
        grid = F.interpolate(grid, size=self.store.size, mode="bilinear", antialias=True)
        return rearrange(grid, "b t h w -> b (h w) t")
