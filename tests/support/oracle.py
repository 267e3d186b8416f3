"""Prompt-to-Prompt written down plainly, with every attention map in full.

An independent statement of what the nodes must compute (Hertz et al. 2022, arXiv:2208.01626):
it shares no code with the pack, makes its own batch, and replaces the attention of every layer
by a softmax that it edits. One chunk of 77 tokens only.

    M_new = α·c·(a·(M_s R) + (1 - a)·M_t) + (1 - α)·M_t        cross-attention
    M_new = M_s                                                 self-attention, in its window
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from scenes import Edit, Settings
from torch import Tensor

TOKENS = 77


@dataclass
class Words:
    """A prompt's words: their token ids and columns; and its end column."""

    ids: list[tuple[int, ...]] = field(default_factory=list)
    columns: list[list[int]] = field(default_factory=list)
    end: int = 0

    def find(self, phrase: Words) -> set[int]:
        """Columns of all occurrences of a phrase."""
        found: set[int] = set()
        for first in range(len(self.ids) - len(phrase.ids) + 1):
            if self.ids[first : first + len(phrase.ids)] == phrase.ids:
                for columns in self.columns[first : first + len(phrase.ids)]:
                    found.update(columns)
        assert found, f"the oracle does not find {phrase.ids} in {self.ids}"
        return found


def read_words(clip: CLIP, prompt: str) -> Words:
    """Group the tokens of a prompt to words: a word ends with a token that ends in </w>."""
    name, (chunk,) = next(iter(clip.tokenize(prompt).items()))
    tokenizer = getattr(clip.tokenizer, f"clip_{name}")
    words, ids, columns = Words(), [], []
    for column, (token, _) in enumerate(chunk):
        if column == 0:
            continue
        if token == tokenizer.end_token:
            words.end = column
            break
        ids.append(token)
        columns.append(column)
        if tokenizer.inv_vocab[token].endswith("</w>"):
            words.ids.append(tuple(ids))
            words.columns.append(columns)
            ids, columns = [], []
    assert not ids
    return words


def common_subsequence(a: list, b: list) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, the earliest where there are several."""
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            same = a[i] == b[j]
            best[i][j] = best[i + 1][j + 1] + 1 if same else max(best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def align(source: Words, target: Words, kind: str) -> tuple[Tensor, Tensor]:
    """Mapper R (source token, target token) and refine weights a (target token)."""
    mapper, own = torch.zeros(TOKENS, TOKENS), torch.ones(TOKENS)

    def spread(source_columns: list[int], target_columns: list[int]) -> None:
        if len(source_columns) == len(target_columns):
            for s, t in zip(source_columns, target_columns, strict=True):
                mapper[s, t] = 1
        else:
            for s in source_columns:
                for t in target_columns:
                    mapper[s, t] = 1 / len(target_columns)

    pairs = common_subsequence(source.ids, target.ids)
    for s, t in pairs:
        spread(source.columns[s], target.columns[t])
    before = (-1, -1)
    for after in [*pairs, (len(source.ids), len(target.ids))]:
        removed = source.columns[before[0] + 1 : after[0]]
        added = target.columns[before[1] + 1 : after[1]]
        before = after
        if kind == "refine" or not removed:
            for columns in added:
                own[columns] = 0
        elif len(removed) == len(added):
            for s_columns, t_columns in zip(removed, added, strict=True):
                spread(s_columns, t_columns)
        elif added:
            spread(sum(removed, []), sum(added, []))
    mapper[0, 0] = 1
    mapper[source.end, target.end] = 1
    for column in range(target.end + 1, TOKENS):
        if column > source.end:
            mapper[column, column] = 1
        else:
            own[column] = 0
    return mapper, own


@dataclass
class Plan:
    """One edit in numbers; windows hold (start, end) for every target token."""

    mapper: Tensor
    refine: Tensor
    equalizer: Tensor
    windows: Tensor
    self_window: tuple[float, float]

    def new_map(self, source_map: Tensor, target_map: Tensor, progress: float) -> Tensor:
        """Maps (..., T), softmax over the tokens."""
        start, end = self.windows[:, 0], self.windows[:, 1]
        alpha = ((start <= progress) & (progress < end)).to(source_map)
        a, c = self.refine, self.equalizer
        edited = c * (a * (source_map @ self.mapper) + (1 - a) * target_map)
        return alpha * edited + (1 - alpha) * target_map


def make_plan(clip: CLIP, edit: Edit) -> Plan:
    """Read an edit into numbers."""
    source, target = read_words(clip, edit.source), read_words(clip, edit.target)
    mapper, refine = align(source, target, edit.kind)
    windows = torch.tensor([[0.0, edit.cross]], dtype=torch.float64).repeat(TOKENS, 1)
    for line in edit.word_windows.splitlines():
        word, _, window = line.rpartition(":")
        start, end = (float(number) for number in window.split("-"))
        columns = list(target.find(read_words(clip, word)))
        windows[columns] = torch.tensor([start, end], dtype=torch.float64)
    equalizer = torch.ones(TOKENS)
    for phrases, scale in edit.scales:
        scaled: set[int] = set()
        for phrase in phrases.replace("\n", ",").split(","):
            scaled |= target.find(read_words(clip, phrase.strip()))
        equalizer[list(scaled)] *= scale
    return Plan(mapper, refine, equalizer, windows, (0.0, edit.self_))


class ExplicitAttention:
    """Attention replacement for all layers of a model whose positive rows are [s, e1 … en] × k.

    first_level: how often the latent is halved before the first layer with attention.
    """

    def __init__(self, plans: list[Plan], first_level: int = 0) -> None:
        self.plans = plans
        self.share = 4 ** (1 + first_level)

    def cross(self, q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
        def edit(maps: Tensor, source: int, row: int, plan: Plan) -> Tensor:
            return plan.new_map(maps[source], maps[row], progress(extra))

        return self.attend(q, k, v, extra, edit)

    def self_(self, q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
        height, width = extra["original_shape"][-2:]

        def edit(maps: Tensor, source: int, row: int, plan: Plan) -> Tensor:
            small = q.shape[1] <= max(1024, height * width / self.share)
            start, end = plan.self_window
            return maps[source] if small and start <= progress(extra) < end else maps[row]

        return self.attend(q, k, v, extra, edit)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, extra: dict, edit: Callable[..., Tensor]
    ) -> Tensor:
        """q, k, v: (B, tokens, heads * dim), the positive chunk anywhere among the rows."""
        heads = extra["n_heads"]
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        maps = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        new = maps.clone()
        chunks = extra["cond_or_uncond"]
        rows, group = len(maps) // len(chunks), 1 + len(self.plans)
        for chunk, uncond in enumerate(chunks):
            for row in range(chunk * rows, 0 if uncond else (chunk + 1) * rows):
                number = (row - chunk * rows) % group
                if number:
                    new[row] = edit(maps, row - number, row, self.plans[number - 1])
        return (new @ v).transpose(1, 2).flatten(2)


def progress(extra: dict) -> float:
    """i / N from the noise level, counting the sigmas of the schedule already reached."""
    sigmas, sigma = extra["sample_sigmas"], float(extra["sigmas"][0])
    step = sum(float(s) >= sigma * (1 - 1e-5) for s in sigmas[:-1]) - 1
    return step / (len(sigmas) - 1)


def patched(model: ModelPatcher, attention: ExplicitAttention) -> ModelPatcher:
    model = model.clone()
    for place in ("input", "middle", "output"):
        for number in range(12):
            model.set_model_attn1_replace(attention.self_, place, number)
            model.set_model_attn2_replace(attention.cross, place, number)
    return model


def positive_rows(clip: CLIP, prompts: list[str], batch: int) -> list:
    """A conditioning of all prompts, once for every seed."""
    encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(p))[0] for p in prompts]
    rows = torch.cat([cond for cond, _ in encoded]).repeat(batch, 1, 1)
    pooled = torch.cat([values["pooled_output"] for _, values in encoded]).repeat(batch, 1)
    return [[rows, {"pooled_output": pooled}]]


@torch.inference_mode()
def oracle(
    model: ModelPatcher, clip: CLIP, edits: list[Edit], settings: Settings,
    noise_sampler: Callable | None = None, first_level: int = 0,
) -> Tensor:  # fmt: skip
    """Latents (batch * (1 + n), C, h, w) of a full run; stochastic samplers need their noise."""
    s = settings
    prompts = [edits[0].source, *(edit.target for edit in edits)]
    positive = positive_rows(clip, prompts, s.batch)
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(s.negative))
    latent = torch.zeros(len(positive[0][0]), 4, s.height // 8, s.width // 8)
    groups = [seed for seed in range(s.batch) for _ in prompts]
    noise = comfy.sample.prepare_noise(latent, s.seed, groups)
    options = {"noise_sampler": noise_sampler} if noise_sampler else {}
    plans = [make_plan(clip, edit) for edit in edits]
    model = patched(model, ExplicitAttention(plans, first_level))
    sigmas = comfy.samplers.KSampler(
        model, s.steps, "cpu", s.sampler_name, s.scheduler, s.denoise
    ).sigmas
    return comfy.sample.sample_custom(
        model, noise, s.cfg, comfy.samplers.ksampler(s.sampler_name, options), sigmas,
        positive, negative, latent, seed=s.seed, disable_pbar=True,
    )  # fmt: skip
