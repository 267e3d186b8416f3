"""The embedded demo model: how it loads, what it paints and edits, what it says when it cannot."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "demo_model"))

from book.judge import judge_pictures  # noqa: E402
from book.world import render, sample_scene  # noqa: E402

FOLDER = REPOSITORY / "demo_model"
NAMES = ("p2p_demo.safetensors", "p2p_demo_instruct.safetensors")
MOST = 10 * 2**20  # bytes of a file
SETTINGS = {"sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "steps": 8, "cfg": 6.0}


@pytest.fixture(scope="module")
def registration() -> ModuleType:
    """The registering module, imported by itself a second time beside the pack's."""
    path = REPOSITORY / "nodes" / "host" / "demo_model.py"
    spec = importlib.util.spec_from_file_location("second_registration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded(graph, loader: str):
    """The model by the pack's node or by the host's loader."""
    if loader == "P2PDemoModel":
        return graph.add(loader)
    import folder_paths

    folder_paths.add_model_folder_path("checkpoints", str(FOLDER))
    return graph.add(loader, ckpt_name=NAMES[0])


def sampled(graph, model, positive, negative, latent, **settings):
    """A KSampler in the graph."""
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    return graph.add("KSampler", **links, **{**SETTINGS, "seed": 3, **settings})


def test_registering_twice_changes_nothing(registration: ModuleType) -> None:
    import comfy.supported_models

    before = list(comfy.supported_models.models)
    registration.register()
    registration.register()
    assert comfy.supported_models.models == before
    assert [model.__name__ for model in before].count("P2PDemo") == 1


def test_the_weights_are_small_and_what_both_need_is_stored_once() -> None:
    from safetensors import safe_open

    kinds = []
    for name in NAMES:
        assert (FOLDER / name).stat().st_size <= MOST
        with safe_open(FOLDER / name, "pt") as file:
            kinds.append({key.split(".")[0] for key in file.keys() if "version" not in key})  # noqa: SIM118
    assert kinds == [{"model", "cond_stage_model", "first_stage_model"}, {"model"}]


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


def test_the_variant_for_instructions_is_an_instruct_pix2pix_model(
    registration: ModuleType,
) -> None:
    import comfy.model_base

    model, clip, _ = registration.load_demo_model(variant="instructions")
    assert isinstance(model.model, comfy.model_base.IP2P)
    assert model.model.diffusion_model.input_blocks[0][0].in_channels == 16
    blue, red = (clip.encode_from_tokens(clip.tokenize(f"make it {c}")) for c in ("blue", "red"))
    assert (blue - red).abs().max() > 0.1
    for path, variant in (
        (registration.WEIGHTS_PATH, "instructions"),
        (registration.INSTRUCT_PATH, "text to image"),
    ):
        with pytest.raises(ValueError, match="is not the demo model's weights file"):
            registration.load_demo_model(path, variant=variant)


def test_words_have_their_own_tokens_and_unknown_words_are_accepted(
    registration: ModuleType,
) -> None:
    clip = registration.load_demo_model()[1]
    encode = lambda text: clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)  # noqa: E731
    red, pooled = encode("a red car")
    blue, _ = encode("a blue car")
    strange, _ = encode("a magnificent car")
    assert red.shape == (1, 77, 64)
    torch.testing.assert_close(red[:, :2], blue[:, :2])  # start of text and "a"
    assert (red[:, 2] - blue[:, 2]).abs().max() > 0.1
    assert all(torch.isfinite(x).all() for x in (red, strange, pooled))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_runs_in_half_precision(
    host: None, registration: ModuleType, dtype: torch.dtype
) -> None:
    import comfy.sd
    from host_run import Graph, run

    path = str(registration.WEIGHTS_PATH)
    parts = comfy.sd.load_checkpoint_guess_config(path, model_options={"dtype": dtype})[:3]
    assert parts[0].model.get_dtype() == dtype
    graph = Graph()
    model, clip, vae = (graph.value(part) for part in parts)
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    words = [graph.add("CLIPTextEncode", clip=clip, text=t) for t in ("a cat in the snow", "")]
    made = graph.add("VAEDecode", samples=sampled(graph, model, *words, latent), vae=vae)
    [verdict] = judge_pictures(run(graph, made).clamp(0, 1).mul(255).byte().numpy())
    assert verdict.setting == "snow"


def test_a_missing_file_is_one_clear_sentence(registration: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing.*install the node pack again"):
        registration.load_demo_model(tmp_path / "p2p_demo.safetensors")


def test_a_damaged_file_is_one_clear_sentence(registration: ModuleType, tmp_path: Path) -> None:
    weights = registration.WEIGHTS_PATH.read_bytes()
    for name, content in (("cut", weights[: len(weights) // 2]), ("junk", b"not weights")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read.*install the node pack again"):
            registration.load_demo_model(path)


def test_a_checkpoint_of_something_else_is_refused(
    registration: ModuleType, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(registration.WEIGHTS_PATH)
    weights.pop(registration.MARKER_KEY)
    path = tmp_path / "other.safetensors"
    save_file(weights, path)
    with pytest.raises(ValueError, match="install the node pack again"):
        registration.load_demo_model(path)


def test_edits_leave_their_source_alone_and_follow_it(host: None) -> None:
    from host_run import Graph, run

    source, targets = "a cat on the grass", ("a dog on the grass", "a cat in the snow")
    graph = Graph()
    book = loaded(graph, "P2PDemoModel")
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    encode = lambda text: graph.add("CLIPTextEncode", clip=book[1], text=text)  # noqa: E731
    swap, other_swap = (
        graph.add(
            "P2PWordSwap", clip=book[1], source_prompt=source, target_prompt=target,
            cross_replace_steps=0.8, self_replace_steps=0.4,
        )
        for target in targets
    )  # fmt: skip
    control = graph.add(
        "P2PAttentionController", model=book, latent=latent, edit=swap, edit_2=other_swap
    )
    edited = sampled(graph, control, control[1], encode(""), control[2])
    alone = [sampled(graph, book, encode(t), encode(""), latent) for t in (source, *targets)]
    together, *plain = (out["samples"] for out in run(graph, edited, *alone))
    torch.testing.assert_close(together[:1], plain[0], atol=2e-3, rtol=0)
    for edit, free in zip(together[1:], plain[1:], strict=True):
        assert (edit - plain[0]).abs().mean() < (free - plain[0]).abs().mean()


def test_edits_of_the_world_say_what_they_change(host: None) -> None:
    from book.edits import EDITS, OUTSIDE, adds_words, blended, cases, shows

    made = cases(60)
    assert {case.kind for case in made} == set(EDITS)
    for case in made:
        assert case.source != case.target
        assert adds_words(case) == (case.kind in ("clothes", "season"))
        assert (case.stays == OUTSIDE) == (case.kind in ("thing", "colour", "clothes"))
        local = blended(case).blend
        for words, prompt in ((local.source, case.source), (local.target, case.target)):
            assert set(words.split(", ")) <= set(prompt.text.split())
        assert bool(local.subtract) == (case.stays != OUTSIDE)
    assert not {case.source for case in made} & {case.source for case in cases(60, 1, False)}
    [verdict] = judge_pictures(render(cat_on_the_grass())[None])
    assert shows(verdict, made[0].source.with_noun(thing="cat", colour=None).with_setting("grass"))
    assert not shows(verdict, made[0].source.with_noun(thing="dog", colour=None))


def cat_on_the_grass():
    """A cat in the middle of the meadow."""
    from book.world import Scene, Thing

    return Scene((Thing("cat", None, None, None, 64, 112, 66),), "grass", horizon=78, extras=4)
