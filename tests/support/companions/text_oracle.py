"""Explicit maps for any batch: rows are told by the text that they read, whoever stacked them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from oracle import ExplicitAttention, Plan, progress
from torch import Tensor

ROLES = "oracle_roles"
Edit = Callable[[Tensor, int, int, Plan], Tensor]


class ByText(ExplicitAttention):
    """texts: of the source and of every edit, (1 + n, T, D). self_attention: whether to inject."""

    def __init__(self, plans: list[Plan], texts: Tensor, first_level: int, self_attention: bool):
        super().__init__(plans, first_level)
        self.texts, self.self_attention = texts, self_attention

    def roles(self, context: Tensor) -> list[int]:
        """0 for a row of the source, n for one of edit n, -1 for every other."""
        texts = self.texts.to(context)
        return [
            next((n for n, text in enumerate(texts) if torch.equal(row, text)), -1)
            for row in context
        ]

    def apply_model(self, executor: Callable, *args, **kwargs) -> Tensor:
        """APPLY_MODEL wrapper."""
        options = {**args[5], ROLES: self.roles(args[3])}
        return executor(*args[:5], options, *args[6:], **kwargs)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra: dict, edit: Edit) -> Tensor:
        heads, roles = extra["n_heads"], extra[ROLES]
        roles = [role for role in roles for _ in range(len(q) // len(roles))]
        k, v = (x.reshape(len(q), -1, x.shape[-1]) for x in (k, v))  # as the host, under HyperTile
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        maps = (q.float() @ k.mT.float() / q.shape[-1] ** 0.5).softmax(-1)
        new = maps.clone()
        sources = [row for row, role in enumerate(roles) if role == 0]
        for number, plan in enumerate(self.plans, start=1):
            rows = [row for row, role in enumerate(roles) if role == number]
            assert len(rows) == len(sources), "the oracle does not find the rows of the edit"
            for source, row in zip(sources, rows, strict=True):
                new[row] = edit(maps, source, row, plan)
        return (new.to(v) @ v).transpose(1, 2).flatten(2)

    def beside(self, previous: Callable | None, q: Tensor, k: Tensor, v: Tensor, extra: dict):
        """What another pack made of the layer, and the change that the edit makes."""
        edited = self.cross(q, k, v, extra)
        if previous is None:
            return edited
        plain = optimized_attention(q, k, v, extra["n_heads"])
        return previous(q, k, v, extra) + edited - plain

    def beside_self(self, previous: Callable | None, q: Tensor, k: Tensor, v: Tensor, extra: dict):
        """Self-attention; who looks at a layer sees the source's queries and keys there."""
        if previous is None:
            return self.self_(q, k, v, extra)
        q, k = q.clone(), k.clone()

        def note(maps: Tensor, source: int, row: int, plan: Plan) -> Tensor:
            start, end = plan.self_window
            if start <= progress(extra) < end:
                q[row], k[row] = q[source], k[source]
            return maps[row]

        self.attend(q, k, v, extra, note)
        return previous(q, k, v, extra)

    def on(self, model: ModelPatcher) -> ModelPatcher:
        """A clone of the model with all attention written out."""
        model = model.clone()
        replaces = model.model_options["transformer_options"].get("patches_replace", {})
        places = [(n, i) for n in ("input", "middle", "output") for i in range(12)]
        kinds = {"attn2": (model.set_model_attn2_replace, self.beside)}
        if self.self_attention:
            kinds["attn1"] = (model.set_model_attn1_replace, self.beside_self)
        for kind, (put, ours) in kinds.items():
            placed = dict(replaces.get(kind, {}))
            for place in {**dict.fromkeys(places), **placed}:
                put(partial(ours, placed.get(place)), *place)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "oracle", self.apply_model)
        return model
