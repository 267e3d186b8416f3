"""A source prompt that another node knows; words that are looked for before sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_run import GraphError, Link, host_nodes, run
from scenes import SOURCE, Edit, Scene, Settings, distance, scene

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=4, width=64, height=64)
TARGET = "a photo of a blue dog on a bench"


def swap(s: Scene, **inputs: Any) -> Link:
    texts = {"source_prompt": "", "target_prompt": TARGET}
    return s.graph.add("P2PWordSwap", clip=s.clip, **{**texts, **inputs})


def invert(s: Scene, **inputs: Any) -> Link:
    photograph = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    latent = s.graph.value({"samples": photograph})
    schedule = {"steps": SHORT.steps, "scheduler": SHORT.scheduler}
    return s.graph.add("P2PDDIMInvert", model=s.model, latent=latent, **schedule, **inputs)


def test_from_another_edit() -> None:
    s = scene(SHORT)
    first = swap(s, source_prompt=SOURCE)
    second = swap(s, source_edit=first)
    one, other = run(s.graph, first, second)
    assert other.prompt_edit.source == one.prompt_edit.source


def test_from_an_inversion_that_was_told_it() -> None:
    s = scene(SHORT)
    told = invert(s, clip=s.clip, text=SOURCE)
    wired = invert(s, positive=s.text(SOURCE))
    edit = swap(s, inversion=told)
    one = s.graph.add(
        "P2PEdit", model=s.model, clip=s.clip, latent=told[1], source_prompt="",
        target_prompt=TARGET, inversion=told,
    )  # fmt: skip
    ours, theirs, made, samples = run(s.graph, told, wired, edit, s.sample(one, one[1], one[2]))
    assert distance(ours.start, theirs.start) == 0 and theirs.text is None
    assert made.prompt_edit.source.text == SOURCE
    assert torch.equal(samples["samples"][:1], ours.latent)


def test_an_inversion_without_a_text_leaves_what_was_typed() -> None:
    s = scene(SHORT)
    edit = run(s.graph, swap(s, source_prompt=SOURCE, inversion=invert(s, positive=s.negative)))
    assert edit.prompt_edit.source.text == SOURCE


def test_inversions_begin_as_a_sampler_does() -> None:
    sampler = host_nodes.KSampler.INPUT_TYPES()["required"]
    for kind in ("P2PDDIMInvert", "P2PNoiseInvert"):
        inputs = host_nodes.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()
        ours = {name: spec for part in inputs.values() for name, spec in part.items()}
        assert ours["steps"][1]["default"] == sampler["steps"][1]["default"]
        assert ours["scheduler"][1]["default"] == sampler["scheduler"][0][0]
        assert ours["denoise"][1]["default"] == sampler["denoise"][1]["default"]


def test_an_unknown_word_is_found_before_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = []
    sampler = host_nodes.NODE_CLASS_MAPPINGS["KSampler"]
    original = sampler.sample
    monkeypatch.setattr(
        sampler, "sample", lambda *args, **kwargs: sampled.append(1) or original(*args, **kwargs)
    )
    for words, message in (("horse", "'horse' is not in the prompt"), ("cat", None)):
        s = scene(SHORT)
        control = s.control(Edit("swap", TARGET))
        samples = s.sample(control, control[1], control[2])
        maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words=words)
        if message is None:
            assert len(run(s.graph, maps)) == 1
        else:
            with pytest.raises(GraphError, match=message):
                run(s.graph, maps)
            assert not sampled
    assert sampled
