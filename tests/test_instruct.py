"""IP2PConditioning on the real host: the guidance's equation, and its laws."""

from __future__ import annotations

import pytest
import torch
from host_run import GraphError, run
from model_state import disturbed, fail, snapshot
from scenes import distance
from tiny_instruct import (
    SHORT,
    AveragingVAE,
    InstructScene,
    counted,
    instruct_scene,
    latents,
    pictures,
    shared_instruct,
    tiny_instruct,
)

pytestmark = pytest.mark.usefixtures("host")

SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "heun", "ddim", "dpmpp_sde", "lcm"]
SCALES = [(1.5, 7.5), (0.0, 4.0), (0.7, 3.0), (3.0, 3.0), (2.0, 1.0), (4.0, 1.2), (1.5, 0.0)]


@pytest.mark.parametrize("sampler_name", SAMPLERS)
def test_it_is_the_hosts_dual_guidance_under_every_sampler(sampler_name: str) -> None:
    s = instruct_scene(SHORT.but(sampler_name=sampler_name))
    ours, theirs = run(s.scene.graph, s.sample(), s.dual())
    assert distance(ours["samples"], theirs["samples"]) < 1e-5


@pytest.mark.parametrize(("image_cfg", "cfg"), SCALES)
def test_it_is_the_hosts_dual_guidance_at_every_scale(image_cfg: float, cfg: float) -> None:
    s = instruct_scene(SHORT.but(cfg=cfg), image_cfg=image_cfg)
    ours, theirs = run(s.scene.graph, s.sample(), s.dual())
    assert distance(ours["samples"], theirs["samples"]) < 1e-5


def test_the_scales_show() -> None:
    results = [latents(s, s.sample()) for s in map(scaled, (1.0, 1.5, 3.0))]
    assert distance(results[1], results[0]) > 1e-2
    assert distance(results[2], results[1]) > 1e-2


def scaled(image_cfg: float) -> InstructScene:
    return instruct_scene(image_cfg=image_cfg)


@pytest.mark.parametrize(
    ("image_cfg", "cfg", "evaluations"),
    [(1.5, 7.5, 3), (1.0, 7.5, 2), (1.0, 1.0, 1), (1.5, 1.0, 3)],
)
def test_evaluations(image_cfg: float, cfg: float, evaluations: int) -> None:
    """All of them in one call; without image guidance those of the ordinary guidance."""
    s = instruct_scene(SHORT.but(cfg=cfg), image_cfg=image_cfg, image=pictures(2))
    with counted(shared_instruct()) as rows:
        latents(s, s.sample())
    assert rows == [2 * evaluations] * SHORT.steps


@pytest.mark.parametrize("cfg", [7.5, 1.0])
def test_without_image_guidance_it_is_the_ordinary_guidance(cfg: float) -> None:
    s = instruct_scene(SHORT.but(cfg=cfg), image_cfg=1.0)
    plain = s.sample(model=s.scene.model)
    ours, theirs = run(s.scene.graph, s.sample(), plain)
    assert distance(ours["samples"], theirs["samples"]) < 1e-6


def test_a_batch_of_pictures_is_each_of_them_alone() -> None:
    both = pictures(2)
    s = instruct_scene(image=both)
    together = latents(s, s.sample())
    assert together.shape == (2, 4, 12, 8)
    for row in range(2):
        s = instruct_scene(image=both[row : row + 1])
        empty = {"samples": torch.zeros(1, 4, 12, 8), "batch_index": [row]}
        alone = latents(s, s.sample(latent_image=s.scene.graph.value(empty)))
        assert distance(together[row : row + 1], alone) < 1e-5
    assert distance(together[1], together[0]) > 1e-2


def test_one_picture_under_several_instructions() -> None:
    s = instruct_scene()
    texts = [s.scene.text(text) for text in ("make it night", "add a red hat")]
    values = run(s.scene.graph, *texts)
    together = [[torch.cat([value[0][0] for value in values]), {}]]
    s = instruct_scene(positive=together)
    rows = latents(s, s.sample())
    assert len(rows) == 2
    for row, value in enumerate(values):
        s = instruct_scene(positive=value)
        empty = {"samples": torch.zeros(1, 4, 12, 8), "batch_index": [row]}
        alone = latents(s, s.sample(latent_image=s.scene.graph.value(empty)))
        assert distance(rows[row : row + 1], alone) < 1e-5


@pytest.mark.parametrize("sampler", ["KSamplerAdvanced", "CFGGuider"])
def test_other_sampler_nodes(sampler: str) -> None:
    s = instruct_scene()
    graph, settings = s.scene.graph, SHORT
    if sampler == "CFGGuider":
        other = s.guided(
            graph.add(
                "CFGGuider", model=s.node, positive=s.node[1], negative=s.node[2], cfg=settings.cfg
            )
        )
    else:
        other = graph.add(
            "KSamplerAdvanced", model=s.node, add_noise="enable", noise_seed=settings.seed,
            steps=settings.steps, cfg=settings.cfg, sampler_name="euler", scheduler="normal",
            positive=s.node[1], negative=s.node[2], latent_image=s.node[4], start_at_step=0,
            end_at_step=100, return_with_leftover_noise="disable",
        )  # fmt: skip
    plain, result = run(graph, s.sample(), other)
    assert distance(result["samples"], plain["samples"]) < 1e-6


def test_the_hosts_dual_guider_is_left_alone() -> None:
    s = instruct_scene()
    with counted(shared_instruct()) as rows:
        ours, theirs = run(s.scene.graph, s.dual(model=s.node), s.dual())
    assert torch.equal(ours["samples"], theirs["samples"])
    assert set(rows) == {3}


def test_the_latest_node_on_a_model_counts() -> None:
    first = instruct_scene(image=pictures(seed=9), image_cfg=3.0)
    model = run(first.scene.graph, first.node)
    again, plain = instruct_scene(model=model), instruct_scene()
    assert torch.equal(latents(again, again.sample()), latents(plain, plain.sample()))


@pytest.mark.parametrize("how", ["run", "error"])
def test_the_model_is_bit_identical_afterwards(how: str) -> None:
    own = tiny_instruct(seed=5)
    s = instruct_scene(model=own)
    model, positive, negative, latent = run(s.scene.graph, *(s.node[i] for i in (0, 1, 2, 4)))
    graph = s.scene.graph
    parts = {"positive": positive, "negative": negative, "latent_image": latent}
    links = {name: graph.value(part) for name, part in parts.items()}
    sampled = s.sample(model=graph.value(model), **links)
    before = latents(s, sampled)
    kept, ours = snapshot(own), snapshot(model)
    if how == "run":
        latents(s, sampled)
    else:
        with pytest.raises(GraphError, match="someone else fails"):
            latents(s, s.sample(model=graph.value(disturbed(model, 3, fail)), **links))
    for patcher, (weights, hung) in ((own, kept), (model, ours)):
        weights_after, hung_after = snapshot(patcher)
        torch.testing.assert_close(weights_after, weights, rtol=0, atol=0)
        assert hung_after == hung
    assert torch.equal(latents(s, sampled), before)


def test_what_the_core_node_makes() -> None:
    """Same encoded pictures, same latent, same crop; uncond has no picture."""
    vae, image = AveragingVAE(), pictures(2, 101, 71)
    s = instruct_scene(vae=vae, image=image)
    core = s.scene.graph.add(
        "InstructPixToPixConditioning", positive=s.inputs["positive"],
        negative=s.inputs["negative"], vae=s.inputs["vae"], pixels=s.inputs["image"],
    )  # fmt: skip
    ours = run(s.scene.graph, *(s.node[i] for i in (1, 2, 3, 4)))
    theirs = run(s.scene.graph, *(core[i] for i in range(3)))
    assert torch.equal(ours[3]["samples"], theirs[2]["samples"])
    for mine, core_cond in ((ours[0], theirs[0]), (ours[1], theirs[1])):
        assert torch.equal(mine[0][0], core_cond[0][0])
        encoded = [cond[0][1]["concat_latent_image"] for cond in (mine, core_cond)]
        assert torch.equal(*encoded)
    assert torch.equal(ours[2][0][0], theirs[1][0][0])
    assert "concat_latent_image" not in ours[2][0][1]


def test_padding_keeps_the_whole_picture_in_its_place() -> None:
    vae, image = AveragingVAE(), pictures(1, 101, 71)
    s = instruct_scene(vae=vae, image=image, fit="pad")
    latent = run(s.scene.graph, s.node[4])
    [seen] = vae.seen
    assert seen.shape == (1, 104, 72, 3)
    assert latent["samples"].shape == (1, 4, 13, 9)
    assert torch.equal(seen[:, :101, :71], image)
    assert torch.equal(seen[:, 101:, :71], image[:, 100:].expand(-1, 3, -1, -1))
    assert torch.equal(seen[:, :, 71:], seen[:, :, 70:71])
