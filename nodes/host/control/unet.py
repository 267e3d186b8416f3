"""Attention control inside a UNet, for one model call.

Nothing is patched on the model: our patches go into the call's own transformer_options. That
happens as late as can be, so they find and keep whatever other packs put on the same layers, in
whichever order the nodes stand in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import comfy.ldm.modules.attention as host_attention
from torch import Tensor

from ....p2p_core.attention import (
    Source,
    attend_columns,
    cross_attention_change,
    edited_cross_attention,
    with_rows,
)
from ....p2p_core.kept import KeptCall, taken
from ..batch import origin
from ..families.clip_text import tiled_rows
from ..families.unet import Layer
from ..kept.keeping import Recorder
from .calls import Call
from .maps import MapCollector


class UNetControl:
    """One call's patches, and the layers that they reached.

    layers: where they go. self_attention_limit: most image positions of a layer with self-attention
    injection. maps: who collects attention maps, if anyone. kept: where the sources are that are
    not in the batch. recorder: who keeps those that are in it, and sources: their rows.
    """

    def __init__(
        self,
        call: Call,
        layers: Mapping[Layer, int],
        self_attention_limit: int,
        maps: MapCollector | None,
        kept: KeptCall | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.call, self.layers, self.maps = call, layers, maps
        self.kept, self.recorder = kept, recorder
        self.self_attention_limit = self_attention_limit
        # The keys are what counts: a compiled network that breaks its graph at the attention loses
        # what is added to a set.
        self.reached: dict[Layer, bool] = {}
        self._self_reached: dict[Layer, bool] = {}
        self._neighbours: list[Callable] = []

    def install(self, options: dict) -> None:
        """Put the patches into a call's own options, around those that are there already."""
        patches = dict(options.get("patches", {}))
        self._neighbours = patches.get("attn2_patch", [])
        patches["attn1_patch"] = [self._attn1, *patches.get("attn1_patch", [])]
        replace = dict(options.get("patches_replace", {}))
        previous = replace.get("attn2", {})
        ours = {
            layer: partial(self._attn2, previous.get(layer, previous.get(layer[:2])))
            for layer in self.layers
        }
        replace["attn2"] = {**previous, **ours}
        options["patches"], options["patches_replace"] = patches, replace

    def check(self) -> None:
        """ValueError if a layer's self-attention escaped us; to be called after the call."""
        missed = self.reached.keys() - self._self_reached.keys()
        if missed and self.call.self_pairs is not None:
            raise missed_layers(sorted(missed), len(self.layers), "self-attention")

    def _attn1(self, n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
        """Before projection: queries and keys of the edited rows become the source's."""
        self._self_reached[_layer(extra)] = True
        pairs = self.call.self_pairs
        if n.shape[1] > self.self_attention_limit:
            return n, context, value
        if self.recorder is not None:
            self.recorder.tokens(_layer(extra), n, self.call.own_sources)
        if pairs is None:
            return n, context, value
        self._check_rows(n, extra)
        if self.kept is not None:
            assert self.kept.tokens is not None
            source = taken(self.kept.tokens[_layer(extra)], n.device)[pairs.source]
            queries = with_rows(n, pairs.edited, source)
            return queries, queries, value
        queries = with_rows(n, pairs.edited, n[pairs.source])
        if context is n:
            return queries, queries, value
        return queries, with_rows(context, pairs.edited, context[pairs.source]), value

    def _attn2(
        self, previous: Callable | None, q: Tensor, k: Tensor, v: Tensor, extra: dict
    ) -> Tensor:
        """Instead of the layer's own attention, or around another pack's replacement."""
        self.reached[_layer(extra)] = True
        self._check_rows(q, extra)
        self._check_columns(k, extra)
        if self.recorder is not None:
            rows = self.call.own_sources
            source = Source(q[rows], k[rows, : self.call.source_columns])
            self.recorder.cross(_layer(extra), source)
        if self.maps is not None:
            self.maps.collect(self.call, q, k, _layer(extra), extra)
        call, attend = self.call, partial(_host_attention, extra)
        if call.cross is None:
            if previous is None:
                return attend_columns(attend, q, k, v, call.lengths)
            return previous(q, *self._whole(k, v), extra)
        edit = self._source(q, k, extra), call.cross, call.lengths
        if previous is None:
            return edited_cross_attention(attend, q, k, v, *edit)
        change, rows = cross_attention_change(attend, q, k, v, *edit), call.cross.edited
        out = previous(q, *self._whole(k, v), extra)
        return with_rows(out, rows, out[rows] + change)

    def _source(self, q: Tensor, k: Tensor, extra: dict) -> Source:
        """The sources' queries and keys: rows of the batch, or kept."""
        if self.kept is None:
            return self.call.source(q, k)
        assert self.kept.cross is not None
        kept = self.kept.cross[_layer(extra)]
        return self.call.source(*(taken(part, q.device) for part in kept))

    def _whole(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values for someone who looks at every column of every row."""
        lengths = self.call.lengths
        return (k, v) if lengths is None else (tiled_rows(k, lengths), tiled_rows(v, lengths))

    def _check_rows(self, x: Tensor, extra: dict) -> None:
        if len(x) != self.call.rows:
            raise ValueError(
                f"Another node's patch{self._named()} changed the rows of attention layer "
                f"{_spelled(_layer(extra))} from {self.call.rows} to {len(x)}, so source and edit "
                "cannot be told apart there. Nodes for regional prompts (couple, attention masks) "
                "do so: remove that node, or use ConditioningSetMask for regions."
            )

    def _check_columns(self, k: Tensor, extra: dict) -> None:
        if k.shape[1] != self.call.columns:
            raise ValueError(
                f"Another node's patch{self._named()} changed the prompt in attention layer "
                f"{_spelled(_layer(extra))} from {self.call.columns} columns to {k.shape[1]}, so "
                "words cannot be found in it. Nodes that append tokens or negate words (NegPiP and "
                "the like) do so: remove that node; P2P Reweight scales words."
            )

    def _named(self) -> str:
        """Who it may have been."""
        names = ", ".join(origin(patch) for patch in self._neighbours)
        return f" ({names})" if names else ""


def missed_layers(missed: list[Layer], layers: int, kind: str) -> ValueError:
    """The error of a patch that did not fire everywhere it should have."""
    named = ", ".join(map(_spelled, missed[:4]))
    return ValueError(
        f"The edit did not reach the {kind} of {len(missed)} of {layers} attention layers "
        f"({named}{' …' if len(missed) > 4 else ''}), so the picture is not what was asked for. "
        "Another node replaces these layers or drops patches on them: remove it or bypass it."
    )


def _layer(extra: dict) -> Layer:
    name, number = extra["block"]
    return Layer(name, number, extra["block_index"])


def _spelled(layer: Layer) -> str:
    return f"{layer.name} {layer.number}.{layer.index}"


def _host_attention(extra: dict, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attention function that the host would have used in this layer. (B, Q, heads * C)"""
    return host_attention.optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )
