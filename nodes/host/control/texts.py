"""A transformer's prompts, each prepared as the host would prepare it alone.

Text tokens of a transformer query, carry positions and are padded in ways of its family, so prompts
are never filled up to a common length: those that come out alike share a model call, every other
one has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import comfy.samplers
import torch
from comfy.conds import CONDList, CONDNoiseShape, CONDRegular
from torch import Tensor

from ..batch import LABELS, ModelInputs

TEXT, CONCAT = "c_crossattn", "c_concat"
Conds = Mapping[str, Any]


class Encoded(NamedTuple):
    """One prompt's encoding: cross_attn (1, T, D) and what goes with it."""

    cross_attn: Tensor
    extras: Mapping[str, Any]


def encode_each(clip: Any, texts: Sequence[str]) -> tuple[Encoded, ...]:
    """The encoding of every prompt; ValueError for a CLIP that encodes on a schedule."""
    return tuple(_encode(clip, text) for text in texts)


def _encode(clip: Any, text: str) -> Encoded:
    entries = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    if len(entries) != 1:
        raise ValueError(
            "This CLIP encodes a prompt differently at different steps (a hook on it does so), "
            "which edits on transformers do not follow. Wire the CLIP without that hook."
        )
    [(cross_attn, extras)] = entries
    return Encoded(cross_attn, dict(extras))


class Prepared:
    """The model inputs of every prompt in a run, for one of the guider's conditionings.

    entry: the guider's, which holds the source's prompt and what other nodes put there (guidance,
    references, areas). sampling: (device, noise, and more) as the host prepares it with.
    """

    def __init__(
        self, model: Any, entry: dict, texts: Sequence[Encoded], name: str, sampling: dict
    ) -> None:
        source = texts[0]
        if not torch.equal(entry["cross_attn"], source.cross_attn):
            raise ValueError(
                "The AttentionController's positive was changed on its way to the sampler, and the "
                "edited prompts would lack the change. Do not average or combine it with others; "
                "change the prompts of the edit instead."
            )
        self.all: list[Conds] = [entry["model_conds"]]
        for text in texts[1:]:
            own = {
                key: value
                for key, value in text.extras.items()
                if key not in source.extras or entry.get(key) is source.extras[key]
            }
            prompt = {**entry, **own, "cross_attn": text.cross_attn, "model_conds": {}}
            [made] = comfy.samplers.encode_model_conds(
                model.extra_conds, [prompt], sampling["noise"], sampling["device"], name,
                latent_image=sampling["latent_image"], denoise_mask=sampling["denoise_mask"],
                seed=sampling["seed"],
            )  # fmt: skip
            self.all.append(made["model_conds"])
        self.together = [
            i for i, conds in enumerate(self.all) if i == 0 or _alike(self.all[0], conds)
        ]

    def substitute(
        self, inputs: ModelInputs, rows: Sequence[int], prompts: Sequence[int]
    ) -> ModelInputs:
        """The call with other prompts in some of its rows, which hold the source's."""
        changed = [(row, self.all[p]) for row, p in zip(rows, prompts, strict=True) if p]
        if not changed:
            return inputs
        more = {name: _substituted(name, value, changed) for name, value in inputs.more.items()}
        text = _substituted(TEXT, inputs.c_crossattn, changed)
        return inputs._replace(c_crossattn=text, more=more)

    def tiled(self, inputs: ModelInputs) -> bool:
        """Whether the host repeated the source's text to fit another prompt's length."""
        text = inputs.c_crossattn
        return text is not None and text.shape[1] != self.all[0][TEXT].cond.shape[1]

    def alone(self, inputs: ModelInputs, prompt: int) -> ModelInputs:
        """A call of rows of one prompt, with that prompt's inputs."""
        made = {
            name: cond.process_cond(batch_size=len(inputs.x), area=None).cond
            for name, cond in self.all[prompt].items()
            if name != LABELS and not isinstance(cond, CONDNoiseShape)
        }
        text = made.pop(TEXT).to(inputs.x.device)
        dropped = set(self.all[0]) - set(self.all[prompt])
        kept = {name: value for name, value in inputs.more.items() if name not in dropped}
        return inputs._replace(c_crossattn=text, more={**kept, **made})


def _alike(one: Conds, other: Conds) -> bool:
    """Whether two prompts can stand in one model batch as they are."""
    one, other = ({k: v for k, v in conds.items() if k != LABELS} for conds in (one, other))
    if one.keys() != other.keys() or one[TEXT].cond.shape != other[TEXT].cond.shape:
        return False
    return all(cond.can_concat(other[name]) for name, cond in one.items())


def _substituted(name: str, value: Any, changed: Sequence[tuple[int, Conds]]) -> Any:
    if name not in changed[0][1]:
        return value
    if isinstance(value, list):
        parts = [[conds[name].cond[i] for _, conds in changed] for i in range(len(value))]
        rows = [row for row, _ in changed]
        return [_with_rows(part, rows, new) for part, new in zip(value, parts, strict=True)]
    if not isinstance(value, Tensor):
        return value
    rows = [(row, conds[name]) for row, conds in changed if name in conds]
    regular = [(row, c.cond) for row, c in rows if _by_row(c)]
    return _with_rows(value, [row for row, _ in regular], [new for _, new in regular])


def _by_row(cond: Any) -> bool:
    """Whether a model input has rows of a prompt's own."""
    own = isinstance(cond, CONDRegular) and isinstance(cond.cond, Tensor)
    return own and not isinstance(cond, (CONDNoiseShape, CONDList)) and cond.cond.ndim > 0


def _with_rows(value: Tensor, rows: Sequence[int], new: Sequence[Tensor]) -> Tensor:
    if not rows:
        return value
    index = torch.tensor(rows, device=value.device)
    return value.index_copy(0, index, torch.cat([part[:1] for part in new]).to(value))
