"""No row for nothing: how many rows the real UNet evaluates, and at which steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import server
import torch
from host_run import Host, Link, run
from row_count import counted
from scenes import SOURCE, Edit, Scene, Settings, distance, scene
from tiny_model import shared_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
TEN_STEPS = Settings(steps=10, width=64, height=64)
SWAP = Edit("swap", "a photo of a blue dog on a bench", cross=0.5, self_=0.3)
UNREAD = {"record_maps": False}


def picture() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * 4


def photograph(s: Scene, edit: Link | Edit = SWAP, **inputs: Any) -> Link:
    """An edit of an inverted picture, sampled."""
    levels = {"steps": s.settings.steps, "scheduler": "normal"}
    latent = s.graph.value({"samples": picture()})
    inversion = s.graph.add("P2PNoiseInvert", latent=latent, seed=5, **levels)
    edit = edit.build(s.graph, s.clip) if isinstance(edit, Edit) else edit
    wired = {"edit": edit, "inversion": inversion, "latent": inversion[1]}
    control = s.control(**{**wired, **inputs})
    return s.sample(control, control[1], control[2])


def test_a_photographs_source_after_the_last_window() -> None:
    """Where nothing looks at it, only the edit is left; the picture is that of all rows."""
    s = scene(TEN_STEPS)
    with counted() as rows:
        out = run(s.graph, photograph(s, **UNREAD))["samples"]
    assert rows == [3] * 5 + [2] * 5
    watched = shared_unet().clone()
    watched.set_model_attn2_output_patch(lambda n, extra: n)  # who may count rows gets all of them
    s = scene(TEN_STEPS, model=watched)
    with counted() as rows:
        every_row = run(s.graph, photograph(s, **UNREAD))["samples"]
    assert rows == [4] * 10
    assert torch.equal(out[:1], picture())
    assert distance(out, every_row) < 1e-5


def test_whoever_looks_longer_keeps_the_row() -> None:
    """The longer of two edits, a word's own window, a local blend."""
    longer = Edit("swap", "a photo of a red dog on a bench", cross=0.8, self_=0.0)
    late = Edit("swap", SWAP.target, cross=0.0, self_=0.3, word_windows="dog: 0.6-0.9")
    s = scene(TEN_STEPS)
    second = longer.build(s.graph, s.clip)
    words = {"source_words": "cat", "target_words": "dog"}
    blended = s.graph.add("P2PLocalBlendMask", edit=SWAP.build(s.graph, s.clip), **words)
    expected = {
        photograph(s, edit_2=second, **UNREAD): [5] * 8 + [4] * 2,
        photograph(s, late, **UNREAD): [3] * 3 + [2] * 3 + [3] * 3 + [2],
        photograph(s, blended, **UNREAD): [3] * 10,
    }
    for link, wanted in expected.items():
        with counted() as rows:
            run(s.graph, link)
        assert rows == wanted


def test_a_pack_may_split_source_and_edit_once_no_window_holds() -> None:
    """Until then it is refused, see test_batches_of_others."""
    first_calls = []

    def late_split(apply_model: Any, given: dict) -> Tensor:
        first_calls.append(given)
        x, t = given["input"], given["timestep"]
        parts = [slice(0, 4)] if len(first_calls) <= 5 else [slice(i, i + 1) for i in range(4)]
        made = []
        for part in parts:
            inputs = {
                name: v[part] if isinstance(v, Tensor) and len(v) == 4 else v
                for name, v in given["c"].items()
            }
            made.append(apply_model(x[part], t[part], **inputs))
        return torch.cat(made)

    def sampled(s: Scene) -> Tensor:
        control = s.control(SWAP, **UNREAD)
        return run(s.graph, s.sample(control, control[1], control[2]))["samples"]

    model = shared_unet().clone()
    model.set_model_unet_function_wrapper(late_split)
    with counted() as rows:
        split = sampled(scene(TEN_STEPS, model=model))
    assert rows == [4] * 5 + [1] * 20
    assert distance(split, sampled(scene(TEN_STEPS))) < 1e-5


class Queue:
    """What the server says it runs."""

    graph: dict[str, Any]

    def get_current_queue(self) -> tuple[list, list]:
        return [(0, "an id", self.graph, {}, [])], []


@pytest.mark.parametrize("node", ["P2PAttentionController", "P2PEdit"])
def test_maps_are_collected_where_a_node_reads_them(
    node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is wired later, to nodes that have run and whose results the host kept."""
    queue = Queue()
    known = SimpleNamespace(prompt_queue=queue, send_progress_text=lambda *_: None)
    monkeypatch.setattr(server.PromptServer, "instance", known, raising=False)
    s, host = scene(TEN_STEPS), Host()
    if node == "P2PEdit":
        prompts = {"source_prompt": SOURCE, "target_prompt": SWAP.target}
        control = s.graph.add(node, model=s.model, clip=s.clip, latent=s.latent, **prompts)
    else:
        control = s.control(SWAP)
    samples = s.sample(control, control[1], control[2])
    pictures = s.graph.value(torch.rand(2, 64, 64, 3))
    s.graph.add("P2PCompare", record=control[3], images=pictures)
    queue.graph = s.graph.prompt
    with counted() as rows:
        unread = host.run(s.graph, samples, control[3])
        host.run(s.graph, samples)
    assert len(rows) == 10 and not unread[1].runs
    maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="dog")
    with counted() as rows:
        sheets, mask = host.run(s.graph, maps, maps[1])
    assert len(rows) == 10 and float(mask.max()) > 0.9 and sheets.isfinite().all()


@pytest.mark.parametrize(
    ("cross", "self_", "inside"), [(0.8, 0.4, 4), (0.75, 0.25, 3), (0.5, 0.5, 2), (0.2, 0.0, 1)]
)
def test_windows_of_a_run_of_four_steps(cross: float, self_: float, inside: int) -> None:
    """As LCM and turbo models are sampled: a step is inside while the share before it is."""
    s, host = scene(TEN_STEPS.but(sampler_name="lcm", steps=4, cfg=1.0)), Host()
    edit = Edit("swap", SWAP.target, cross=cross, self_=self_)
    kept = s.graph.add("P2PKeepSource", model=s.model, latent=s.latent, keep="light", steps=4)
    control = s.control(edit, kept_source=kept, **UNREAD)
    other = s.control(Edit("swap", "a dog", cross=cross, self_=self_), kept_source=kept, **UNREAD)
    alone = s.sample(s.model, s.text(SOURCE), s.latent)
    out = host.run(s.graph, s.sample(control, control[1], control[2]))["samples"]
    with counted() as rows:
        host.run(s.graph, s.sample(other, other[1], other[2]))
    assert rows == [2] * inside + [1] * (4 - inside)
    assert distance(out[:1], host.run(s.graph, alone)["samples"]) < 1e-4
    assert distance(out[1], out[0]) > 1e-2
