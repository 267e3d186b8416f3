"""Collecting one run's attention maps, at one coarse resolution."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ....p2p_core.maps import MapStore, attention_map, edited_map
from ..families.unet import Layer
from .calls import Call


class MapCollector:
    """Adds the maps of our rows to a store: one row a picture of the latent, one column a token.

    layers: those of the coarse resolution. rows: of the latent. columns: of the longest prompt.
    """

    def __init__(self, store: MapStore, layers: Set[Layer], rows: int, columns: int) -> None:
        self.store, self.layers, self.rows, self.columns = store, layers, rows, columns

    def collect(
        self, call: Call, q: Tensor, k: Tensor, layer: Layer, extra: dict[str, Any]
    ) -> None:
        """Add a layer's maps, with its edits. q: (B, Q, C); k: (B, T, C)."""
        if layer not in self.layers:
            return
        maps = self._edited(call, q, k, extra["n_heads"])[..., : self.columns]
        maps = self._sized(maps, extra["activations_shape"])
        if call.latent_rows != tuple(range(self.rows)):
            every = maps.new_zeros(self.rows, *maps.shape[1:])
            maps = every.index_add(0, torch.tensor(call.latent_rows, device=maps.device), maps)
        self.store.add(call.step, maps)

    def _edited(self, call: Call, q: Tensor, k: Tensor, heads: int) -> Tensor:
        """The maps of our rows as the edit leaves them, (rows, Q, T)."""
        lengths = call.lengths and [call.lengths[row] for row in call.controlled.tolist()]
        maps = attention_map(q[call.controlled], k[call.controlled], heads, lengths)
        if call.cross is None:
            return maps
        place = {row: i for i, row in enumerate(call.controlled.tolist())}
        source, edited = (
            torch.tensor([place[row] for row in rows.tolist()], device=maps.device)
            for rows in call.pairs
        )
        source_maps = maps[source][..., : call.source_columns]
        return edited_map(maps, source_maps, call.cross._replace(edited=edited))

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
