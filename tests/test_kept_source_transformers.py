"""A kept source of a transformer: the pictures of the live run, from fewer rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
import torch
from families import refiners, streams
from families.edits import (
    ADDED,
    EQUAL,
    EXACT,
    LONGER,
    SOURCE,
    Case,
    How,
    clip_of,
    edit_of,
    latent_of,
    model_of,
    name_of,
    sampled,
)
from families.watching import pack
from host_run import Graph, GraphError, Host, Link
from scenes import distance
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host", "models")
TOLERANCE = 1e-4
TEN_STEPS = How(steps=10)
FIRST = Case(EQUAL, "qk")
OTHERS = [Case("a blue cat on a bench", "qk", self_=0.2), Case(LONGER, "qk")]
QWEN = streams.QWEN_IMAGE


@contextmanager
def counted(family: Any) -> Iterator[list[int]]:
    """The rows of every call of the real network, seen by its own hook."""
    rows: list[int] = []
    network = model_of(family).model.diffusion_model
    hook = network.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        hook.remove()


class Scene:
    """Edits of one kept source on a tiny transformer, with and without it."""

    def __init__(
        self, family: Any, kind: str = "full", how: How = TEN_STEPS, mode: str = "qk", **inputs: Any
    ) -> None:
        self.family, self.how, self.mode = family, how, mode
        self.graph, self.host = Graph(), Host()
        self.latent = self.graph.value({"samples": latent_of(family, how.seeds)})
        model = self.graph.value(how.model or model_of(family))
        wired = {"model": model, "latent": self.latent, "keep": kind, "steps": how.steps}
        self.kept = self.graph.add("P2PKeepSource", **{**wired, "budget": 8.0, **inputs})

    def control(
        self, *cases: Case, kept: Link | None, edits: Sequence[Any] = (), **inputs: Any
    ) -> Link:
        made = [*edits, *(edit_of(clip_of(self.family), case) for case in cases)]
        names = ["edit", *(f"edit_{number}" for number in range(2, 9))]
        links = dict(zip(names, map(self.graph.value, made), strict=False))
        return self.graph.add(
            "P2PAttentionController",
            model=self.graph.value(self.how.model or model_of(self.family)), latent=self.latent,
            **{"mode": self.mode, "record_maps": False, "kept_source": kept, **links, **inputs},
        )  # fmt: skip

    def samples(self, *cases: Case, kept: Link | None, **inputs: Any) -> Link:
        control = self.control(*cases, kept=kept, **inputs)
        return sampled(self.graph, self.family, self.how, control, control[1], control[2])

    def keep(self, *cases: Case, **inputs: Any) -> Tensor:
        """The run whose source is kept."""
        return self.host.run(self.graph, self.samples(*cases, kept=self.kept, **inputs))["samples"]

    def compared(self, *cases: Case, **inputs: Any) -> tuple[list[int], list[int], float]:
        """Rows of every call with the kept source and live, and how far the results differ."""
        links = [self.samples(*cases, kept=own, **inputs) for own in (None, self.kept, None)]
        found = []  # the first run may have to find the layout of a prompt's length
        for link, host in zip(links, (Host(), self.host, Host()), strict=True):
            with counted(self.family) as rows:
                found.append((host.run(self.graph, link)["samples"], rows))
        _, (out, rows), (live, every_row) = found
        assert distance(live[1], live[0]) > 1e-4, "the edit does nothing"
        return rows, every_row, distance(out, live)


WAYS = cycle([("full", "hybrid"), ("light", "qk")])


@pytest.mark.parametrize(
    ("family", "kind", "mode"),
    [
        pytest.param(family, *way, id=name_of(family))
        for family, way in zip(EXACT, WAYS, strict=False)
    ],
)
def test_every_family(family: Any, kind: str, mode: str) -> None:
    """Prompts of the source's length and of another, of which a network may read other shapes."""
    s = Scene(family, kind, How(steps=3, cfg=3.0), mode)
    s.keep(FIRST)
    others = [OTHERS[0], Case(ADDED, mode, "refine")]
    for case in others[: 1 if family is refiners.HIDREAM else 2]:  # it pads the text to lengths
        rows, every_row, error = s.compared(case)
        assert error <= TOLERANCE
        assert sum(every_row) == 12
        inside = round(case.self_ * 3 + 0.3)
        assert sum(rows) == 6 + (inside if kind == "light" else 0)


@pytest.mark.parametrize(
    "how",
    [
        replace(TEN_STEPS, sampler="euler_ancestral", seeds=2),
        replace(TEN_STEPS, sampler="er_sde", guider="CFGGuider", cfg=3.0),
        replace(TEN_STEPS, sampler="res_multistep", guider="BasicGuider"),
        replace(TEN_STEPS, sampler="heun", steps=5),
    ],
    ids=lambda how: how.sampler,
)
@pytest.mark.parametrize("kind", ["full", "light"])
def test_samplers_guiders_and_several_edits(kind: str, how: How) -> None:
    s = Scene(QWEN, kind, how)
    s.keep(FIRST)
    for cases in ([OTHERS[0]], OTHERS):
        rows, every_row, error = s.compared(*cases)
        assert error <= TOLERANCE
        parts = 1 if how.cfg == 1.0 else 2
        calls = sum(every_row) // (parts * (1 + len(cases)) * how.seeds)
        assert calls == {"heun": 9}.get(how.sampler, how.steps)
        edits = parts * len(cases) * how.seeds * calls
        assert sum(rows) == edits if kind == "full" else edits < sum(rows) < sum(every_row)


@pytest.mark.parametrize("steps", [4, 8, 20])
def test_the_default_mode(steps: int) -> None:
    """The layout is taken in a fifth of the steps, or in the first of a few."""
    s = Scene(refiners.Z_IMAGE, "light", How(steps=steps), "auto")
    s.keep(FIRST)
    rows, every_row, error = s.compared(FIRST)
    inside = 4 if steps == 20 else 1
    assert error <= TOLERANCE
    assert (sum(rows), sum(every_row)) == (steps + inside, 2 * steps)


def with_edit(case: Case, **changes: Any) -> Any:
    """An edit with other parts of its own, as the nodes behind it make it."""
    edit = edit_of(clip_of(QWEN), case)
    return replace(edit, prompt_edit=replace(edit.prompt_edit, **changes))


@pytest.mark.parametrize("mode", ["qk", "hybrid"])
@pytest.mark.parametrize("kind", ["full", "light"])
def test_blends_and_maps(kind: str, mode: str) -> None:
    """Kept from a run without either: where its words looked is kept as well."""
    s = Scene(QWEN, kind, How(steps=5, seeds=2), mode)
    s.keep(FIRST)
    source, target = (clip_of(QWEN).prompt(text) for text in (SOURCE, ADDED))
    blends, whole = pack("p2p_core.local_blend"), pack("p2p_core.schedule").WHOLE_RUN
    words = [source.words[2].columns, target.words[5].columns]
    region = blends.WordRegion(*words)
    blend = blends.LocalBlend(region, blends.WordRegion((), ()), 0.8, 0.0)
    edits = [
        with_edit(Case(ADDED, mode, "refine"), blend=blend),
        edit_of(clip_of(QWEN), OTHERS[1]),
    ]
    found = []
    for kept, host in ((None, Host()), (s.kept, s.host), (None, Host())):
        control = s.control(kept=kept, record_maps=True, edits=edits)
        samples = sampled(s.graph, QWEN, s.how, control, control[1], control[2])
        with counted(QWEN) as rows:
            latents, record = host.run(s.graph, samples, control[3])
        maps = record.word_maps(record.runs[-1], [*words, ()], whole)
        found.append((latents["samples"], record.runs[-1].masks, maps, sum(rows)))
    _, (latents, masks, maps, rows), (live, live_masks, live_maps, every_row) = found
    assert distance(latents, live) <= TOLERANCE
    assert masks.keys() == live_masks.keys() and set(maps) == set(live_maps) == {0, 1, 3, 4}
    assert all(torch.equal(masks[step], live_masks[step]) for step in masks)
    assert 0.02 < float(masks[4][::2].float().mean()) < 0.98
    for prompt in maps:
        torch.testing.assert_close(maps[prompt], live_maps[prompt], rtol=1e-2, atol=1e-2)
    assert every_row == 6 * 5
    inside = {"qk": 2, "hybrid": 4}[mode]
    assert rows == 4 * 5 + (2 * inside if kind == "light" else 0)


def test_scaled_words_outside_the_windows() -> None:
    """They need no source: a word's own window may be longer than the layout's."""
    s = Scene(QWEN, "light")
    s.keep(FIRST)
    edit = edit_of(clip_of(QWEN), replace(FIRST, cross=0.9))
    dog = edit.prompt_edit.target.words[2].columns
    scaled = replace(edit, prompt_edit=edit.prompt_edit.reweighted(dog, 4.0))
    found = []
    for kept, edits in ((s.kept, [scaled]), (None, [scaled]), (None, [edit])):
        control = s.control(kept=kept, edits=edits)
        link = sampled(s.graph, QWEN, s.how, control, control[1], control[2])
        with counted(QWEN) as rows:
            found.append(s.host.run(s.graph, link)["samples"])
        assert sum(rows) == (14 if kept is not None else 20)
    assert distance(found[0], found[1]) <= TOLERANCE
    assert distance(found[1][1], found[2][1]) > 1e-4


def test_the_size_is_told_before_it_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    s = Scene(QWEN)
    s.keep(FIRST)
    source = s.host.run(s.graph, s.kept)
    told, said = (text for text in caplog.messages if "edits look at" in text or "is kept" in text)
    each = sum(
        part.numel() * part.element_size()
        for kept in source.run.calls[0].joint.values()
        for part in (kept.q, kept.k)
    )
    spelled = pack("nodes.host.kept.sizes").spelled
    each_step = f"takes {spelled(each)} for each step inside the windows (4 of 10)"
    assert told.startswith(f"What edits look at {each_step}")
    assert 4 * each < source.run.bytes < 5 * each and said.endswith(f"{spelled(source.run.bytes)}.")


def test_a_budget_leaves_the_later_steps_live(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    whole = Scene(QWEN)
    whole.keep(FIRST)
    budget = whole.host.run(whole.graph, whole.kept).run.bytes / 4 * 2.2 / 1e9
    caplog.clear()
    s = Scene(QWEN, budget=budget)
    s.keep(FIRST)
    told, said = (text for text in caplog.messages if "edits look at" in text or "is kept" in text)
    assert told.endswith("holds 2.") and "2 of 10 model calls keep evaluating it" in said
    rows, _, error = s.compared(FIRST)
    assert error <= TOLERANCE and sum(rows) == 12
    assert s.host.run(s.graph, s.kept).run.bytes <= budget * 1e9 * 1.1


def test_only_the_edited_blocks_are_kept() -> None:
    """Others are another source's: what was kept would not do."""
    s = Scene(QWEN)
    s.keep(FIRST)
    whole = s.host.run(s.graph, s.kept).run.bytes
    rows, every_row, error = s.compared(FIRST, blocks="0")
    assert error <= TOLERANCE and sum(rows) == sum(every_row)
    assert s.host.run(s.graph, s.kept).run.bytes < whole
    rows, _, error = s.compared(OTHERS[1], blocks="0")
    assert error <= TOLERANCE and sum(rows) == 10


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "cfg": ("the guidance", {"cfg": 3.0}),
    "steps": ("the noise levels", {"steps": 5}),
    "sampler": ("the sampler", {"sampler": "res_multistep"}),
    "seeds": ("the number of pictures", {"seeds": 2}),
    "guidance": (
        "the prompts",
        {"cond": lambda graph, link: graph.add("FluxGuidance", conditioning=link, guidance=9.0)},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_has_changed(change: str) -> None:
    what, differently = CHANGES[change]
    for refuses in (True, False):
        s = Scene(streams.FLUX_DEV, when_changed="refuse" if refuses else "keep anew")
        s.keep(FIRST)
        s.how = replace(s.how, **differently)
        s.latent = s.graph.value({"samples": latent_of(streams.FLUX_DEV, s.how.seeds)})
        if refuses:
            with pytest.raises(GraphError, match=f"kept from another run: .*{what}.* not what"):
                s.keep(FIRST)
            continue
        rows, every_row, error = s.compared(FIRST)
        assert error == 0 and sum(rows) == sum(every_row)
        rows, every_row, error = s.compared(OTHERS[0])
        assert error <= TOLERANCE and sum(rows) == sum(every_row) // 2
