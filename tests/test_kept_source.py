"""A kept source: the pictures of the live run, from fewer rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from families.watching import pack
from host_run import GraphError, Host, Interrupted, Link, run
from model_state import Disturbance, cancel, fail
from row_count import counted
from scenes import SOURCE, Edit, Scene, Settings, distance, scene
from tiny_model import UNET, TinySD15, shared_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")
TOLERANCE = 1e-4
TEN_STEPS = Settings(steps=10, width=64, height=64)
FIRST = Edit("swap", "a photo of a blue dog on a bench")
OTHERS = [
    Edit("swap", "a photo of a green cat on a bench", self_=0.2),
    Edit("refine", "a photo of a fluffy red cat asleep on a bench", cross=0.6),
    Edit("reweight", scales=(("red, cat", 3.0),)),
]


def keep(s: Scene, kind: str = "full", **inputs: Any) -> Link:
    wired = {"model": s.model, "latent": s.latent, "keep": kind, "steps": s.settings.steps}
    return s.graph.add("P2PKeepSource", **{**wired, **inputs})


def sampled(s: Scene, *edits: Edit, kept: Link | None = None, **inputs: Any) -> Link:
    control = s.control(*edits, kept_source=kept, **{"record_maps": False, **inputs})
    return s.sample(control, control[1], control[2])


def compared(
    s: Scene, kept: Link, *edits: Edit, host: Host, **inputs: Any
) -> tuple[list[int], float]:
    """Rows of every model call of an edit of the kept source; how far it is from the live run."""
    links = [sampled(s, *edits, kept=own, **inputs) for own in (kept, None)]
    with counted() as rows:
        out = host.run(s.graph, links[0])["samples"]
    live = Host().run(s.graph, links[1])["samples"]
    assert len(edits) and distance(live[1], live[0]) > 1e-3
    return rows, distance(out, live)


@pytest.mark.parametrize(
    "settings",
    [
        TEN_STEPS,
        TEN_STEPS.but(sampler_name="euler_ancestral", batch=2),
        TEN_STEPS.but(sampler_name="dpmpp_2m_sde", scheduler="karras"),
        TEN_STEPS.but(sampler_name="uni_pc", cfg=1.0),
    ],
    ids=lambda settings: settings.sampler_name,
)
@pytest.mark.parametrize("kind", ["full", "light"])
def test_the_next_edits_are_those_of_the_live_run(kind: str, settings: Settings) -> None:
    s, host = scene(settings), Host()
    kept = keep(s, kind)
    host.run(s.graph, sampled(s, FIRST, kept=kept))
    parts = settings.batch * (1 if settings.cfg == 1.0 else 2)
    for edit in OTHERS:
        rows, error = compared(s, kept, edit, host=host)
        assert error <= TOLERANCE
        inside = round(edit.cross * 10)
        source = 0 if kind == "full" else settings.batch
        assert rows == [parts + source] * inside + [parts] * (10 - inside)
    rows, error = compared(s, kept, *OTHERS, host=host)
    assert error <= TOLERANCE and min(rows) == 3 * parts


@pytest.mark.parametrize("sampler_name", ["heun", "dpmpp_sde", "dpm_2_ancestral"])
def test_samplers_that_ask_twice_a_step(sampler_name: str) -> None:
    s, host = scene(TEN_STEPS.but(sampler_name=sampler_name, steps=5)), Host()
    kept = keep(s)
    host.run(s.graph, sampled(s, FIRST, kept=kept))
    rows, error = compared(s, kept, OTHERS[0], host=host)
    assert error <= TOLERANCE and set(rows) == {2}


def picture() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * 4


@pytest.mark.parametrize("sampler_name", ["euler", "heun"])
def test_a_photograph(sampler_name: str) -> None:
    s, host = scene(TEN_STEPS.but(sampler_name=sampler_name)), Host()
    photo = s.graph.value({"samples": picture()})
    inversion = s.graph.add(
        "P2PDDIMInvert", model=s.model, positive=s.text(SOURCE), steps=10, scheduler="normal",
        latent=photo,
    )  # fmt: skip
    wired = {"inversion": inversion, "latent": inversion[1]}
    kept = keep(s, latent=photo)
    first = host.run(s.graph, sampled(s, FIRST, kept=kept, **wired))["samples"]
    assert torch.equal(first[:1], picture())
    rows, error = compared(s, kept, OTHERS[0], host=host, **wired)
    assert error <= TOLERANCE and set(rows) == {2}
    again = host.run(s.graph, sampled(s, OTHERS[1], kept=kept, **wired))["samples"]
    assert torch.equal(again[:1], picture())


@pytest.mark.parametrize("kind", ["full", "light"])
def test_blends_and_maps_of_a_kept_source(kind: str) -> None:
    """Kept from a run without either: where its words looked is kept as well."""
    settings = Settings(width=192, height=128, steps=5, batch=2)
    s, host = scene(settings), Host()
    kept = keep(s, kind)
    host.run(s.graph, sampled(s, FIRST, kept=kept))
    words = {"source_words": "cat", "target_words": "cat", "threshold": 0.6}
    blended = s.graph.add("P2PLocalBlendMask", edit=OTHERS[1].build(s.graph, s.clip), **words)
    found = []
    for own, where in ((kept, host), (None, Host())):
        control = s.control(edit=blended, edit_2=OTHERS[0].build(s.graph, s.clip), kept_source=own)
        samples = s.sample(control, control[1], control[2])
        maps = s.graph.add(
            "P2PAttentionMaps", record=control[3], samples=samples, words="cat, fluffy"
        )
        with counted() as rows:
            latents, mask, blend = where.run(s.graph, samples, maps[1], maps[2])
        found.append((latents["samples"], mask, blend, rows))
    (latents, mask, blend, rows), (live, live_mask, live_blend, all_rows) = found
    assert distance(latents, live) <= TOLERANCE
    torch.testing.assert_close(mask, live_mask, rtol=1e-2, atol=1e-2)
    assert torch.equal(blend, live_blend) and 0.02 < float(blend.mean()) < 0.98
    assert all_rows == [12] * 5
    assert rows == ([8] * 5 if kind == "full" else [10] * 4 + [8])


def test_a_plain_prompt_is_a_source_too() -> None:
    """Kept before there is any edit: source alone, two rows a step."""
    s, host = scene(TEN_STEPS), Host()
    kept = keep(s)
    prompt = s.graph.add("P2PPlainPrompt", clip=s.clip, prompt=SOURCE)
    host.run(s.graph, sampled(s, kept=kept, edit=prompt))
    rows, error = compared(s, kept, FIRST, host=host)
    assert error <= TOLERANCE and set(rows) == {2}


def test_windows_longer_than_what_was_kept() -> None:
    s, host = scene(TEN_STEPS), Host()
    kept = keep(s, cross_replace_steps=0.5, self_replace_steps=0.2)
    host.run(s.graph, sampled(s, FIRST, kept=kept))
    edit = Edit("swap", FIRST.target, cross=0.7, self_=0.3)
    rows, error = compared(s, kept, edit, host=host)
    assert error <= TOLERANCE and rows == [2, 2, 3, 2, 2, 3, 3, 2, 2, 2]


def test_a_budget_leaves_the_later_steps_live(caplog: pytest.LogCaptureFixture) -> None:
    s, host = scene(TEN_STEPS), Host()
    caplog.set_level("INFO")
    kept = keep(s, budget=0.0012)
    host.run(s.graph, sampled(s, FIRST, kept=kept))
    said = [text for text in caplog.messages if text.startswith("The source is kept")]
    rows, error = compared(s, kept, OTHERS[0], host=host)
    assert error <= TOLERANCE
    full = rows.index(3)
    assert 0 < full < 8 and rows == [2] * full + [3] * (8 - full) + [2] * 2
    assert f"{8 - full} of 10 model calls keep evaluating it" in said[0]
    assert host.run(s.graph, kept).run.bytes <= 0.0013e9


def changed_model(s: Scene, how: str) -> Link:
    model = shared_unet().clone()
    if how == "LoRA":
        key = "diffusion_model.middle_block.1.proj_in.weight"
        weight = model.model.state_dict()[key]
        model.add_patches({key: (torch.randn_like(weight),)}, 0.05)
    else:
        model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0.99)
    return s.graph.value(model)


CHANGES: dict[str, tuple[str, Any]] = {
    "seed": ("the noise's seed", lambda s: ({}, {"seed": 8})),
    "cfg": ("the guidance", lambda s: ({}, {"cfg": 5.0})),
    "steps": ("the noise levels", lambda s: ({}, {"steps": 5})),
    "scheduler": ("the noise levels", lambda s: ({}, {"scheduler": "karras"})),
    "sampler": ("the sampler", lambda s: ({}, {"sampler_name": "dpmpp_2m"})),
    "negative": ("the prompts", lambda s: ({}, {"negative": s.text("ugly")})),
    "LoRA": ("the model or its LoRAs", lambda s: ({"model": changed_model(s, "LoRA")}, {})),
    "patch": ("patches of other nodes", lambda s: ({"model": changed_model(s, "patch")}, {})),
    "size": ("the size", lambda s: ({"latent": empty(s, 8, 16)}, {})),
    "seeds": ("the number of pictures", lambda s: ({"latent": empty(s, 8, 8, 2)}, {})),
    "picture": ("the latent", lambda s: ({"latent": s.graph.value({"samples": picture()})}, {})),
    "limit": ("self_replace_tokens", lambda s: ({"self_replace_tokens": 16}, {})),
}


def empty(s: Scene, height: int, width: int, batch: int = 1) -> Link:
    return s.graph.value({"samples": torch.zeros(batch, 4, height, width)})


@pytest.mark.parametrize("change", [*CHANGES, "source"])
def test_a_source_that_has_changed(change: str) -> None:
    """It is refused by a sentence that names the change, or kept anew: never used."""
    s, host = scene(TEN_STEPS.but(steps=4)), Host()
    what, differently = CHANGES.get(change, ("the prompts", lambda s: ({}, {})))
    of_control, of_sampler = differently(s)
    edits = OTHERS[:2]
    if change == "source":
        edits = [Edit("swap", target, "a cat") for target in ("a dog", "a bird")]

    def changed(kept: Link | None, edit: Edit = edits[0]) -> Link:
        control = s.control(edit, kept_source=kept, record_maps=False, **of_control)
        return s.sample(control, control[1], control[2], **of_sampler)

    strict, lenient = keep(s, when_changed="refuse"), keep(s)
    for kept in (strict, lenient):
        host.run(s.graph, sampled(s, FIRST, kept=kept))
    with pytest.raises(GraphError, match=f"kept from another run: .*{what}.* not what"):
        host.run(s.graph, changed(strict))
    with counted() as rows:
        out = host.run(s.graph, changed(lenient))["samples"]
    assert torch.equal(out, run(s.graph, changed(None))["samples"])
    seeds = len(out) // 2
    assert set(rows) == {4 * seeds}
    with counted() as rows:
        host.run(s.graph, changed(lenient, edits[1]))
    assert set(rows) == {2 * seeds}, "what was kept anew serves the next run"


def test_the_samplers_own_noise_counts() -> None:
    """An inversion needs no seed, a stochastic sampler does, though it starts from the same x."""
    s, host = scene(TEN_STEPS.but(steps=4, sampler_name="euler_ancestral")), Host()
    kept = keep(s, when_changed="refuse")
    control = s.control(FIRST, kept_source=kept, record_maps=False)

    def by_custom(seed: int) -> Link:
        """Sampled without noise of its own, from a given latent."""
        return s.graph.add(
            "SamplerCustom", model=control, add_noise=False, noise_seed=seed, cfg=4.0,
            positive=control[1], negative=s.negative, latent_image=control[2],
            sampler=s.graph.add("KSamplerSelect", sampler_name="euler_ancestral"),
            sigmas=s.graph.add("BasicScheduler", model=s.model, scheduler="normal", steps=4,
                               denoise=1.0),
        )  # fmt: skip

    host.run(s.graph, by_custom(1))
    with pytest.raises(GraphError, match="the seed of the sampler's noise is not what it was"):
        host.run(s.graph, by_custom(2))


def test_company_that_may_count_rows(caplog: pytest.LogCaptureFixture) -> None:
    model = shared_unet().clone()
    model.set_model_attn2_output_patch(lambda n, extra: n)
    s, host = scene(TEN_STEPS.but(steps=3), model=model), Host()
    caplog.set_level("INFO")
    kept = keep(s)
    host.run(s.graph, sampled(s, FIRST, kept=kept))
    assert any("Nothing could be kept" in text for text in caplog.messages)
    rows, error = compared(s, kept, OTHERS[0], host=host)
    assert set(rows) == {4} and error == 0


@pytest.mark.parametrize("how", ["error", "cancel"])
def test_a_run_that_ends_early_keeps_nothing(how: str) -> None:
    """Neither while its source is kept nor while an edit follows it: the next runs are as ever."""
    action, error = {"error": (fail, GraphError), "cancel": (cancel, Interrupted)}[how]
    trouble = Disturbance(0, action)  # the same model in all runs, so that the source stays its own
    model = shared_unet().clone()
    model.set_model_unet_function_wrapper(trouble)
    s, host = scene(TEN_STEPS, model=model), Host()
    kept = keep(s)
    for edit, rows in ((FIRST, 4), (OTHERS[0], 2)):
        trouble.left = 3
        with pytest.raises(error):
            host.run(s.graph, sampled(s, edit, kept=kept))
        found, off = compared(s, kept, edit, host=host)
        assert set(found) == {rows} and off <= TOLERANCE


def test_the_size_is_told_before_it_is_made() -> None:
    """The forecast is what a run keeps; and Stable Diffusion 1.5 at 512 px takes 1.2 GB."""
    s, host = scene(TEN_STEPS.but(width=128, height=96)), Host()
    kept = keep(s)
    host.run(s.graph, sampled(s, FIRST, kept=kept))
    source = host.run(s.graph, kept)
    sizes_of, unet_family = (
        pack("nodes.host.kept.sizes"),
        pack("nodes.host.families.unet").unet_family,
    )
    call_sizes_of, told = sizes_of.call_sizes_of, sizes_of.told

    def forecast(source: Any, sizes: Any, steps: int) -> Any:
        return sizes_of.forecast(source, sizes_of.unet_windows(source), sizes, steps)

    family = unet_family(shared_unet())
    sizes = call_sizes_of(shared_unet(), family, (1, 4, 12, 16))
    found = forecast(source, sizes, 10)
    assert source.run.bytes == found.path + found.attention
    assert (found.kept, found.coupled, found.steps) == (8, 8, 10)
    real = true_sd15()
    sizes = call_sizes_of(real, unet_family(real), (1, 4, 64, 64))
    found = forecast(replace(source, budget=2 * 10**9), sizes, 50)
    assert 1.0e9 < found.path + found.attention < 1.6e9 and found.kept == 40
    less = forecast(replace(source, budget=5 * 10**8), sizes, 50)
    assert 0 < less.kept < 40 and less.attention <= 5e8
    assert "2 rows in every step" in told(source, found)
    assert "3 rows in" in told(source, less) and "budget of 0.5 GB" in told(
        replace(source, budget=5 * 10**8), less
    )


def true_sd15() -> Any:
    """Stable Diffusion 1.5 in half precision, without weights."""
    shape = {
        **UNET, "model_channels": 320, "context_dim": 768, "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "dtype": torch.float16,
    }  # fmt: skip
    model = TinySD15(shape).get_model({}, device=torch.device("meta"))
    return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
