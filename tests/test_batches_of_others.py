"""Packs that split, stack or rewrite what the model is given: right, or refused by a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from host_run import Graph, GraphError, Link, run
from scenes import SOURCE, Edit, Scene, Settings, controlled, distance, plain, scene
from tiny_model import shared_unet, tiny_clip
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
SWAP = Edit("swap", "a photo of a blue dog on a bench")
LONG = Edit("swap", SWAP.target + ", under very old trees with leaves" * 20)
SHORT = Settings(steps=5, width=128, height=64)
HALVES = (slice(0, 8), slice(8, 16))
Wrapper = Callable[[Callable, dict], Tensor]


def with_wrapper(wrapper: Wrapper) -> ModelPatcher:
    model = shared_unet().clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def rows_of(inputs: dict, choose: Callable[[Tensor], Tensor], rows: int) -> dict:
    """The model's inputs with something done to every tensor that has a row for each picture."""
    return {
        name: choose(v) if isinstance(v, Tensor) and len(v) == rows else v
        for name, v in inputs.items()
    }


def tile_by_tile(apply_model: Callable, given: dict) -> Tensor:
    parts = [
        apply_model(given["input"][..., part], given["timestep"], **given["c"]) for part in HALVES
    ]
    return torch.cat(parts, dim=-1)


def stacked_tiles(apply_model: Callable, given: dict) -> Tensor:
    """As tiled diffusion: the tiles of all rows in one batch, every input repeated to fit."""
    x, t = given["input"], given["timestep"]
    inputs = rows_of(given["c"], lambda v: torch.cat([v, v]), len(x))
    out = apply_model(torch.cat([x[..., part] for part in HALVES]), t.repeat(2), **inputs)
    return torch.cat(out.chunk(2), dim=-1)


def interleaved_tiles(apply_model: Callable, given: dict) -> Tensor:
    x, t = given["input"], given["timestep"]
    inputs = rows_of(given["c"], lambda v: v.repeat_interleave(2, dim=0), len(x))
    tiles = torch.stack([x[..., part] for part in HALVES], dim=1).flatten(0, 1)
    out = apply_model(tiles, t.repeat_interleave(2), **inputs)
    return torch.cat([out[::2], out[1::2]], dim=-1)


def one_by_one(apply_model: Callable, given: dict) -> Tensor:
    """Cond and uncond after each other; who is who is told by number, but not by uuid."""
    x, numbers, parts = given["input"], given["cond_or_uncond"], []
    size = len(x) // len(numbers)
    for i, number in enumerate(numbers):
        own = slice(i * size, (i + 1) * size)
        inputs = rows_of(given["c"], lambda v, own=own: v[own], len(x))
        inputs["transformer_options"] = {
            **inputs["transformer_options"],
            "cond_or_uncond": [number],
        }
        parts.append(apply_model(x[own], given["timestep"][own], **inputs))
    return torch.cat(parts)


def only_what_it_knows(wrapper: Wrapper) -> Wrapper:
    """The same by a pack that hands on the inputs it knows by name."""

    def strict(apply_model: Callable, given: dict) -> Tensor:
        known = {k: v for k, v in given["c"].items() if k in ("c_crossattn", "transformer_options")}
        return wrapper(apply_model, {**given, "c": known})

    return strict


@pytest.mark.parametrize("wrapper", [stacked_tiles, interleaved_tiles])
@pytest.mark.parametrize(
    "edits", [[SWAP], [SWAP, Edit("reweight", scales=(("red", 2.0),))], [LONG]]
)
def test_tiles_in_the_batch(wrapper: Wrapper, edits: list[Edit]) -> None:
    """Every tile's edit looks at its own source, as when the tiles are evaluated one by one."""
    expected = controlled(edits, SHORT, model=with_wrapper(tile_by_tile))
    rows = controlled(edits, SHORT, model=with_wrapper(wrapper))
    assert distance(rows, expected) <= 1e-5
    assert distance(rows[0], plain(SOURCE, SHORT, model=with_wrapper(wrapper))[0]) <= 1e-5
    assert distance(rows[1], rows[0]) > 1e-2


def test_prompts_one_by_one() -> None:
    expected = controlled([SWAP], SHORT)
    rows = controlled([SWAP], SHORT, model=with_wrapper(one_by_one))
    assert distance(rows, expected) <= 1e-5


def test_inputs_rebuilt_without_our_labels() -> None:
    def same(apply_model: Callable, given: dict) -> Tensor:
        return apply_model(given["input"], given["timestep"], **given["c"])

    for edit in (SWAP, LONG):
        rows = controlled([edit], SHORT, model=with_wrapper(only_what_it_knows(same)))
        assert distance(rows, controlled([edit], SHORT)) <= 1e-5


@pytest.mark.parametrize("wrapper", [stacked_tiles, interleaved_tiles, one_by_one])
def test_rows_that_cannot_be_accounted_for(wrapper: Wrapper) -> None:
    model = with_wrapper(only_what_it_knows(wrapper))
    message = "changed the model's batch from 4 rows to [82].*only_what_it_knows.*remove that node"
    with pytest.raises(GraphError, match=message):
        controlled([SWAP], SHORT, model=model)


def rows_apart(apply_model: Callable, given: dict) -> Tensor:
    """One picture at a time."""
    x = given["input"]
    parts = []
    for i in range(len(x)):
        inputs = rows_of(given["c"], lambda v, i=i: v[i : i + 1], len(x))
        parts.append(apply_model(x[i : i + 1], given["timestep"][i : i + 1], **inputs))
    return torch.cat(parts)


def test_an_edit_without_its_source() -> None:
    with pytest.raises(GraphError, match="not evaluated in the same model call.*splits the batch"):
        controlled([SWAP], SHORT, model=with_wrapper(rows_apart))


def test_a_local_blend_under_tiles_names_the_tiles() -> None:
    s = scene(SHORT, model=with_wrapper(tile_by_tile))
    edit = s.graph.add(
        "P2PLocalBlendMask", edit=SWAP.build(s.graph, s.clip), source_words="cat", start_blend=0.0
    )
    control = s.graph.add("P2PAttentionController", model=s.model, latent=s.latent, edit=edit)
    with pytest.raises(GraphError, match="evaluates it in tiles. Remove that node or the blend"):
        run(s.graph, s.sample(control, control[1], control[2]))


def couple(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
    """Regional prompts: the rows once more for every region."""
    return tuple(torch.cat([x, x]) for x in (n, context, value))


def appended(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple:
    """Tokens of its own behind the prompt's."""
    return n, *(torch.cat([x, x[:, :4]], dim=1) for x in (context, value))


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (couple, "test_batches_of_others.couple.*rows of attention layer input 1.0 from 4 to 8"),
        (appended, "test_batches_of_others.appended.*input 1.0 from 77 columns to 81"),
    ],
)
def test_patches_that_change_rows_or_columns(patch: Callable, message: str) -> None:
    model = shared_unet().clone()
    model.set_model_attn2_patch(patch)
    with pytest.raises(GraphError, match=f"{message}.*remove that node"):
        controlled([SWAP], SHORT, model=model)


def dropping(kind: str) -> ModelPatcher:
    """A pack whose wrapper around the network forgets a kind of patches."""

    def forgetful(executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
        options = dict(kwargs.pop("transformer_options", None) or args[5])
        for place in ("patches", "patches_replace"):
            options[place] = {k: v for k, v in options.get(place, {}).items() if k != kind}
        return executor(*args[:5], options, *args[6:], **kwargs)

    model = shared_unet().clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "forgetful", forgetful)
    return model


@pytest.mark.parametrize(
    ("kind", "message"),
    [("attn1_patch", "self-attention of 10 of 10"), ("attn2", "never evaluated|cross-attention")],
)
def test_patches_that_are_dropped(kind: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        controlled([SWAP], SHORT, model=dropping(kind))


def test_a_network_that_shrinks_inside() -> None:
    """Deep Shrink: fewer positions in the first steps, and maps at their own resolution."""
    s = scene(SHORT.but(width=256, height=256))
    model = s.graph.add(
        "PatchModelAddDownscale", model=s.model, block_number=3, downscale_factor=2.0,
        start_percent=0.0, end_percent=0.5, downscale_after_skip=True,
        downscale_method="bicubic", upscale_method="bicubic",
    )  # fmt: skip
    control = s.control(SWAP, model=model)
    samples = s.sample(control, control[1], control[2])
    plain_samples = s.sample(model, s.text(SOURCE), s.latent)
    maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="cat, dog")
    edited, source, masks = run(s.graph, samples, plain_samples, maps[1])
    rows = edited["samples"]
    assert distance(rows[0], source["samples"][0]) <= 1e-4
    assert distance(rows[1], rows[0]) > 1e-2
    assert masks.shape == (2, 256, 256) and masks.isfinite().all()


def merged(s: Scene, model: Link) -> Link:
    return s.graph.add("ModelMergeSimple", model1=s.model, model2=model, ratio=0.5)


@pytest.mark.parametrize("elsewhere", [lambda s, model: s.model, merged])
def test_the_positive_on_a_model_that_is_not_its_own(elsewhere: Callable) -> None:
    s = scene(SHORT)
    control = s.control(SWAP)
    samples = s.sample(elsewhere(s, control), control[1], control[2])
    message = "positive comes from AttentionController, but its model.*no Attention.*Wire the model"
    with pytest.raises(GraphError, match=message):
        run(s.graph, samples)


def test_conditionings_share_a_batch_and_leave_no_hooks() -> None:
    """The guard of a conditioning costs no further model call."""
    calls = []

    def count(apply_model: Callable, given: dict) -> Tensor:
        calls.append(len(given["input"]))
        return apply_model(given["input"], given["timestep"], **given["c"])

    controlled([SWAP], SHORT, model=with_wrapper(count))
    assert calls == [4] * SHORT.steps


def test_a_textual_inversion_of_another_width(tmp_path: Any) -> None:
    torch.save({"toy": torch.randn(3, 48)}, tmp_path / "toy.pt")
    graph = Graph()
    clip = graph.value(tiny_clip(embeddings=str(tmp_path)))
    target = "a photo of a embedding:toy dog on a bench"
    link = graph.add("P2PWordSwap", clip=clip, source_prompt=SOURCE, target_prompt=target)
    with pytest.raises(
        GraphError, match=r"\(toy\) of width 48, but this CLIP.s CLIP-L reads width 64"
    ):
        run(graph, link)
