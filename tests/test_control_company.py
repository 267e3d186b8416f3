"""Pinned sources beside ControlNets and wrappers, long prompts, areas, previews, messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from control_nets import apply_control_net
from host_run import GraphError, Link, run
from scenes import SOURCE, Edit, Scene, Settings, controlled, distance, plain, scene
from tiny_model import shared_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
SWAP = Edit("swap", "a photo of a blue dog on a bench")
SHORT = Settings(steps=4, width=64, height=64)
MORE = ", under very old trees with leaves"


def words(chunks: int) -> str:
    """Text behind a prompt that makes it so many chunks of 77 columns long."""
    return MORE * (11 * (chunks - 1))


def invert(s: Scene, samples: Tensor) -> Link:
    return s.graph.add(
        "P2PDDIMInvert", model=s.model, positive=s.text(SOURCE), steps=s.settings.steps,
        latent=s.graph.value({"samples": samples}), scheduler=s.settings.scheduler,
    )  # fmt: skip


def picture() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * 4


def test_prompts_of_three_four_and_five_chunks() -> None:
    """Each picture is that of its prompt alone where nothing is injected; cost is the longest's."""
    calls = []

    def count(
        executor: Callable, x: Tensor, t: Tensor, context: Tensor, *a: Any, **k: Any
    ) -> Tensor:
        calls.append(tuple(context.shape[:2]))
        return executor(x, t, context, *a, **k)

    model = shared_unet().clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "count", count)
    source = SOURCE + words(3)
    targets = [SOURCE + words(4), "a red dog" + words(5)]
    edits = [Edit("swap", t, source, cross=0.0, self_=0.0) for t in targets]
    rows = controlled(edits, SHORT, model=model)
    assert {columns for _, columns in calls} <= {77, 5 * 77}
    for row, prompt in zip(rows, [source, *targets], strict=True):
        assert distance(row, plain(prompt, SHORT)[0]) <= 1e-5
    edited = controlled([Edit("swap", t, source) for t in targets], SHORT)
    assert distance(edited[0], rows[0]) <= 1e-5
    assert distance(edited[1], rows[1]) > 1e-2


def louder(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
    from comfy.ldm.modules.attention import optimized_attention

    return 1.3 * optimized_attention(q, k, v, extra["n_heads"])


@pytest.mark.parametrize("company", ["a replaced layer", "a ControlNet"])
def test_others_see_whole_prompts(company: str) -> None:
    """Whoever looks at every column of a short prompt beside a long one sees it undisturbed."""
    target = "a red dog" + words(3)
    edit = Edit("swap", target, SOURCE + words(2), cross=0.0, self_=0.0)
    model = shared_unet()
    if company == "a replaced layer":
        model = model.clone()
        model.set_model_attn2_replace(louder, "middle", 0)

    def sampled(s: Scene, model: Link, positive: Link, latent: Link) -> Link:
        if company == "a ControlNet":
            positive, negative = apply_control_net(s.graph, positive, s.negative)
            return s.sample(model, positive, latent, negative=negative)
        return s.sample(model, positive, latent)

    s = scene(SHORT, model=model)
    control = s.control(edit)
    rows, *alone = run(
        s.graph,
        sampled(s, control, control[1], control[2]),
        *(sampled(s, s.model, s.text(text), s.latent) for text in (edit.source, target)),
    )
    for row, expected in zip(rows["samples"], alone, strict=True):
        assert distance(row, expected["samples"][0]) <= 1e-5
    assert distance(rows["samples"][1], plain(target, SHORT)[0]) > 1e-2, "the company shows"


@pytest.mark.parametrize("hints", [2, 3])
def test_every_picture_has_its_own_hint(hints: int) -> None:
    """Source and edits of a seed see the same one."""
    s = scene(SHORT.but(batch=3))

    def sampled(model: Link, positive: Link, latent: Link) -> Link:
        positive, negative = apply_control_net(s.graph, positive, s.negative, hints=hints)
        return s.sample(model, positive, latent, negative=negative)

    control = s.control(Edit("swap", SWAP.target, cross=0.0, self_=0.0), SWAP)
    rows, *alone = run(
        s.graph,
        sampled(control, control[1], control[2]),
        *(sampled(s.model, s.text(text), s.latent) for text in (SOURCE, SWAP.target)),
    )
    for member, expected in zip((0, 1), alone, strict=True):
        assert distance(rows["samples"][member::3], expected["samples"]) <= 1e-5


def with_foreign_wrapper() -> ModelPatcher:
    """A pack that may count rows: none may be left out before it."""

    def counted(executor: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert len(x) in (1, 4), "the inversion's row, or all of source and edit"
        return executor(x, *args, **kwargs)

    model = shared_unet().clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "counted", counted)
    return model


@pytest.mark.parametrize("steered", [False, True], ids=["", "a ControlNet"])
def test_a_pinned_source_in_company(steered: bool) -> None:
    """The source is the very photograph, and the edit as when every row is evaluated."""

    def sampled(model: ModelPatcher) -> Tensor:
        s = scene(SHORT, model=model)
        inversion = invert(s, picture())
        control = s.control(SWAP, inversion=inversion, latent=inversion[1])
        positive, negative = control[1], s.negative
        if steered:
            positive, negative = apply_control_net(s.graph, positive, negative)
        return run(s.graph, s.sample(control, positive, control[2], negative=negative))["samples"]

    every_row, out = sampled(with_foreign_wrapper()), sampled(shared_unet())
    assert torch.equal(out[:1], picture())
    assert distance(out[1], out[0]) > 1e-2
    assert distance(out, every_row) <= 1e-5


def test_previews_of_a_pinned_run_show_the_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    import latent_preview

    shown = []

    def keep(*_: Any) -> Callable:
        return lambda step, denoised, x, total: shown.append(denoised.clone())

    monkeypatch.setattr(latent_preview, "prepare_callback", keep)
    s = scene(SHORT)
    inversion = invert(s, picture())
    control = s.control(SWAP, inversion=inversion, latent=inversion[1])
    run(s.graph, s.sample(control, control[1], control[2]))
    runs = [denoised for denoised in shown if len(denoised) == 2]
    assert len(runs) == SHORT.steps
    scaled = picture() * 0.18215
    for denoised in runs:
        assert distance(denoised[:1], scaled) <= 1e-5
        assert distance(denoised[1:], scaled) > 1e-2


def test_an_area_that_the_negative_lacks() -> None:
    """The host copies our entry's area to the negative: the copy holds no edit.

    As when the negative has that area by itself.
    """
    s = scene(SHORT.but(width=128))

    def in_area(conditioning: Link, rest: Link) -> Link:
        size = {"x": 32, "y": 0, "width": 64, "height": 64, "strength": 1.0}
        region = s.graph.add("ConditioningSetArea", conditioning=conditioning, **size)
        return s.graph.add("ConditioningCombine", conditioning_1=region, conditioning_2=rest)

    control = s.control(SWAP)
    positive = in_area(control[1], s.text("mist"))
    copied, given, source = run(
        s.graph,
        s.sample(control, positive, control[2]),
        s.sample(control, positive, control[2], negative=in_area(s.negative, s.negative)),
        s.sample(s.model, in_area(s.text(SOURCE), s.text("mist")), s.latent),
    )
    assert distance(copied["samples"][0], source["samples"][0]) <= 1e-5
    assert distance(copied["samples"], given["samples"]) <= 1e-5
    assert distance(copied["samples"][1], copied["samples"][0]) > 1e-3


def limited(s: Scene, control: Link) -> Link:
    """A positive that ends before the sampler begins."""
    return s.graph.add(
        "ConditioningSetTimestepRange", conditioning=control[1], start=0.0, end=0.001
    )


def test_an_edited_prompt_that_is_never_evaluated() -> None:
    s = scene(SHORT)
    control = s.control(SWAP)
    sampled = s.graph.add(
        "KSamplerAdvanced", model=control, add_noise="enable", noise_seed=1, steps=4, cfg=3.0,
        sampler_name="euler", scheduler="normal", positive=limited(s, control),
        negative=s.negative, latent_image=control[2], start_at_step=2, end_at_step=4,
        return_with_leftover_noise="disable",
    )  # fmt: skip
    with pytest.raises(GraphError, match="never evaluated in this run.*Remove what limits"):
        run(s.graph, sampled)


def test_a_layer_that_is_never_reached() -> None:
    """A pack that computes a layer without asking for patches."""
    model = shared_unet().clone()

    def blind(executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
        options = dict(kwargs.pop("transformer_options", None) or args[5])
        replace = {k: v for k, v in options["patches_replace"]["attn2"].items() if k[0] != "middle"}
        options["patches_replace"] = {**options["patches_replace"], "attn2": replace}
        return executor(*args[:5], options, *args[6:], **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "blind", blind)
    message = r"cross-attention of 1 of 10 attention layers \(middle 0.0\).*remove it or bypass"
    with pytest.raises(GraphError, match=message):
        controlled([SWAP], SHORT, model=model)
