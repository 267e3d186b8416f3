"""The laws under every sampler and every sampling node of the host."""

from __future__ import annotations

import comfy.samplers
import pytest
import torch
from host_run import GraphError, Link, run
from scenes import SOURCE, Edit, Scene, Settings, controlled, distance, identity, plain, scene

pytestmark = pytest.mark.usefixtures("host")
TOLERANCE = 1e-4
SWAP = Edit("swap", "a photo of a blue dog on a bench")
SMALL = Settings(steps=4, width=64, height=64, cfg=3.0)


ROW_WISE = [name for name in comfy.samplers.SAMPLER_NAMES if name != "dpm_adaptive"]


@pytest.mark.parametrize("name", ROW_WISE)
def test_an_identity_edit_under_every_sampler(name: str) -> None:
    """Edit and source are one picture, and it is the one that the seed gives without us."""
    settings = SMALL.but(sampler_name=name)
    rows = controlled([identity()], settings)
    assert torch.isfinite(rows).all()
    assert distance(rows[1], rows[0]) <= TOLERANCE
    assert distance(rows[0], plain(SOURCE, settings)[0]) <= TOLERANCE


def test_steps_chosen_from_source_and_edit_together_are_refused() -> None:
    settings = SMALL.but(sampler_name="dpm_adaptive")
    with pytest.raises(GraphError, match="dpm_adaptive chooses its steps from.*Use dpmpp_2m"):
        controlled([SWAP], settings)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde", "ddpm", "lcm", "dpmpp_sde"])
def test_seeds_of_a_batch_get_different_noise(name: str) -> None:
    rows = controlled([identity()], SMALL.but(sampler_name=name, batch=2))
    assert distance(rows[1], rows[0]) <= TOLERANCE
    assert distance(rows[3], rows[2]) <= TOLERANCE
    assert distance(rows[2], rows[0]) > 0.1


def advanced(s: Scene, model: Link, positive: Link, latent: Link, **changes: object) -> Link:
    settings = s.settings
    inputs = {
        "model": model, "positive": positive, "negative": s.negative, "latent_image": latent,
        "add_noise": "enable", "noise_seed": settings.seed, "steps": settings.steps,
        "cfg": settings.cfg, "sampler_name": settings.sampler_name,
        "scheduler": settings.scheduler, "start_at_step": 0, "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
    }  # fmt: skip
    return s.graph.add("KSamplerAdvanced", **{**inputs, **changes})


def custom_parts(s: Scene, model: Link) -> dict[str, Link]:
    return {
        "sampler": s.graph.add("KSamplerSelect", sampler_name=s.settings.sampler_name),
        "sigmas": s.graph.add(
            "BasicScheduler", model=model, scheduler=s.settings.scheduler,
            steps=s.settings.steps, denoise=1.0,
        ),
    }  # fmt: skip


def custom(s: Scene, model: Link, positive: Link, latent: Link) -> Link:
    return s.graph.add(
        "SamplerCustom", model=model, positive=positive, negative=s.negative, latent_image=latent,
        add_noise=True, noise_seed=s.settings.seed, cfg=s.settings.cfg, **custom_parts(s, model),
    )  # fmt: skip


def custom_advanced(s: Scene, model: Link, positive: Link, latent: Link) -> Link:
    guider = s.graph.add(
        "CFGGuider", model=model, positive=positive, negative=s.negative, cfg=s.settings.cfg
    )
    return with_guider(s, guider, model, latent)


def with_guider(s: Scene, guider: Link, model: Link, latent: Link) -> Link:
    noise = s.graph.add("RandomNoise", noise_seed=s.settings.seed)
    return s.graph.add(
        "SamplerCustomAdvanced", noise=noise, guider=guider, latent_image=latent,
        **custom_parts(s, model),
    )  # fmt: skip


@pytest.mark.parametrize("cfg", [1.0, 5.0])
@pytest.mark.parametrize("node", [advanced, custom, custom_advanced])
def test_every_sampling_node_gives_what_ksampler_gives(node, cfg: float) -> None:
    settings = Settings(steps=6, width=64, height=96, cfg=cfg)
    s = scene(settings)
    control = s.control(SWAP)
    found = run(s.graph, node(s, control, control[1], control[2]))["samples"]
    for row, expected in zip(found, controlled([SWAP], settings), strict=True):
        assert distance(row, expected) <= TOLERANCE


def test_basic_guider() -> None:
    settings = Settings(steps=6, width=64, height=96, cfg=1.0)
    s = scene(settings)
    control = s.control(SWAP)
    guider = s.graph.add("BasicGuider", model=control, conditioning=control[1])
    found = run(s.graph, with_guider(s, guider, control, control[2]))["samples"]
    for row, expected in zip(found, controlled([SWAP], settings), strict=True):
        assert distance(row, expected) <= TOLERANCE


def test_dual_guider_numbers_its_conditionings_differently() -> None:
    s = scene(Settings(steps=6, width=64, height=96))

    def sample(model: Link, positive: Link, latent: Link) -> Link:
        guider = s.graph.add(
            "DualCFGGuider", model=model, cond1=positive, cond2=s.text("a park"),
            negative=s.negative, cfg_conds=4.0, cfg_cond2_negative=2.0, style="regular",
        )  # fmt: skip
        return with_guider(s, guider, model, latent)

    control = s.control(SWAP, identity())
    edited, source, target = run(
        s.graph,
        sample(control, control[1], control[2]),
        sample(s.model, s.text(SOURCE), s.latent),
        sample(s.model, s.text(SWAP.target), s.latent),
    )
    rows = edited["samples"]
    assert distance(rows[0], source["samples"][0]) <= TOLERANCE
    assert distance(rows[2], rows[0]) <= TOLERANCE
    assert distance(rows[1], target["samples"][0]) > 1e-2


def test_a_run_split_in_two() -> None:
    settings = Settings(steps=8, width=64, height=96)
    s = scene(settings)
    control = s.control(SWAP, identity())

    def split(model: Link, positive: Link, latent: Link) -> Link:
        first = advanced(
            s, model, positive, latent, end_at_step=4, return_with_leftover_noise="enable"
        )
        return advanced(s, model, positive, first, start_at_step=4, add_noise="disable")

    edited, expected = run(
        s.graph,
        split(control, control[1], control[2]),
        split(s.model, s.text(SOURCE), s.latent),
    )
    rows = edited["samples"]
    assert distance(rows[0], expected["samples"][0]) <= TOLERANCE
    assert distance(rows[2], rows[0]) <= TOLERANCE
    assert distance(rows[1], rows[0]) > 1e-2
