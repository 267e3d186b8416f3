"""The picture book as a variant of the demo model: how it loads, what it paints and edits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "demo_model"))

from book.judge import judge_pictures  # noqa: E402
from book.world import render, sample_scene  # noqa: E402

WEIGHTS = REPOSITORY / "demo_model" / "p2p_demo_book.safetensors"
SETTINGS = {"sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "steps": 16, "cfg": 6.0}


def loaded(graph, loader: str):
    """The picture book by the pack's node or by the host's loader."""
    if loader == "P2PDemoModel":
        return graph.add(loader, variant="picture book")
    import folder_paths

    folder_paths.add_model_folder_path("checkpoints", str(WEIGHTS.parent))
    return graph.add(loader, ckpt_name=WEIGHTS.name)


def sampled(graph, model, positive, negative, latent, **settings):
    """A KSampler in the graph."""
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    return graph.add("KSampler", **links, **{**SETTINGS, "seed": 3, **settings})


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size <= 10 * 2**20


def test_the_node_and_the_checkpoint_loader_give_the_same_model(host: None) -> None:
    from host_run import Graph, run

    graph = Graph()
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    samples = []
    for name in ("P2PDemoModel", "CheckpointLoaderSimple"):
        book = loaded(graph, name)
        words = [graph.add("CLIPTextEncode", clip=book[1], text=t) for t in ("a cat", "")]
        samples.append(sampled(graph, book, *words, latent, steps=3))
    ours, theirs = run(graph, *samples)
    assert ours["samples"].shape == (1, 8, 16, 16)
    torch.testing.assert_close(ours["samples"], theirs["samples"])


def test_it_is_no_inpainting_model(host: None) -> None:
    """The host takes more than four input channels for an inpainting model's."""
    from host_run import Graph, run

    graph = Graph()
    model = run(graph, loaded(graph, "P2PDemoModel"))
    assert model.model.concat_keys == ()
    assert model.model.diffusion_model.input_blocks[0][0].in_channels == 8


def test_it_paints_what_the_prompt_says(host: None) -> None:
    from host_run import Graph, run

    wanted = [("cat", "snow"), ("penguin", "night"), ("car", "beach"), ("house", "sunset")]
    texts = [
        "a cat in the snow",
        "a penguin at night",
        "a red car on the beach",
        "a house at sunset",
    ]
    graph = Graph()
    book = loaded(graph, "P2PDemoModel")
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    negative = graph.add("CLIPTextEncode", clip=book[1], text="")
    pictures = []
    for text in texts:
        positive = graph.add("CLIPTextEncode", clip=book[1], text=text)
        samples = sampled(graph, book, positive, negative, latent)
        pictures.append(graph.add("VAEDecode", samples=samples, vae=book[2]))
    made = torch.cat(run(graph, *pictures)).clamp(0, 1).mul(255).byte().numpy()
    found = [(verdict.thing, verdict.setting) for verdict in judge_pictures(made)]
    hits = sum(
        a == b
        for one, goal in zip(found, wanted, strict=True)
        for a, b in zip(one, goal, strict=True)
    )
    assert hits >= 7, found


def test_the_autoencoder_keeps_scenes(host: None) -> None:
    from random import Random

    from host_run import Graph, run

    rng = Random("unseen in the host")
    scenes = torch.from_numpy(np.stack([render(sample_scene(rng)) for _ in range(8)])).float() / 255
    graph = Graph()
    vae = loaded(graph, "P2PDemoModel")[2]
    latent = graph.add("VAEEncode", pixels=graph.value(scenes), vae=vae)
    latents, pictures = run(graph, latent, graph.add("VAEDecode", samples=latent, vae=vae))
    assert latents["samples"].shape == (8, 8, 16, 16)
    assert 0.6 < latents["samples"].std() < 1.2
    assert -10 * (pictures - scenes).square().mean().log10() > 30


@pytest.mark.parametrize("swap", ["a dog on the grass", "a cat in the snow"])
def test_an_edit_leaves_its_source_alone_and_follows_it(host: None, swap: str) -> None:
    from host_run import Graph, run

    graph = Graph()
    book = loaded(graph, "P2PDemoModel")
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    encode = lambda text: graph.add("CLIPTextEncode", clip=book[1], text=text)  # noqa: E731
    edit = graph.add(
        "P2PWordSwap", clip=book[1], source_prompt="a cat on the grass", target_prompt=swap,
        cross_replace_steps=0.8, self_replace_steps=0.4,
    )  # fmt: skip
    control = graph.add("P2PAttentionController", model=book, latent=latent, edit=edit)
    edited = sampled(graph, control, control[1], encode(""), control[2])
    alone, free = (
        sampled(graph, book, encode(text), encode(""), latent)
        for text in ("a cat on the grass", swap)
    )
    pair, source, target = (out["samples"] for out in run(graph, edited, alone, free))
    torch.testing.assert_close(pair[:1], source, atol=2e-3, rtol=0)
    assert (pair[1:] - source).abs().mean() < (target - source).abs().mean()


def test_edits_of_the_book_say_what_they_change(host: None) -> None:
    from book.edits import EDITS, OUTSIDE, adds_words, cases, shows

    made = cases(60)
    assert {case.kind for case in made} == set(EDITS)
    for case in made:
        assert case.source != case.target
        assert adds_words(case) == (case.kind in ("clothes", "season"))
        assert (case.stays == OUTSIDE) == (case.kind in ("thing", "colour", "clothes"))
    [verdict] = judge_pictures(render(cat_on_the_grass())[None])
    assert shows(verdict, made[0].source.with_noun(thing="cat", colour=None).with_setting("grass"))
    assert not shows(verdict, made[0].source.with_noun(thing="dog", colour=None))


def cat_on_the_grass():
    """A cat in the middle of the meadow."""
    from book.world import Scene, Thing

    return Scene((Thing("cat", None, None, None, 64, 112, 66),), "grass", horizon=78, extras=4)
