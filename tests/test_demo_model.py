"""The embedded demo model: how it loads, what it paints, and what it says when it cannot."""

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

SETTINGS = {"sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "steps": 16, "cfg": 6.0}


@pytest.fixture(scope="module")
def registration() -> ModuleType:
    """The registering module, imported by itself a second time beside the pack's."""
    path = REPOSITORY / "nodes" / "host" / "demo_model.py"
    spec = importlib.util.spec_from_file_location("second_registration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parts(registration: ModuleType) -> tuple:
    return registration.load_demo_model()


def sample(parts: tuple, texts: list[str], seed: int = 3) -> np.ndarray:
    """Pictures (B, 128, 128, 3) uint8, one per prompt, by the host's sampler."""
    import comfy.sample

    model, clip, vae = parts
    encode = lambda text: clip.encode_from_tokens_scheduled(clip.tokenize(text))[0]  # noqa: E731
    positive = [[torch.cat([encode(text)[0] for text in texts]), {}]]
    latent = torch.zeros(len(texts), 4, 16, 16)
    with torch.inference_mode():
        samples = comfy.sample.sample(
            model, comfy.sample.prepare_noise(latent, seed), SETTINGS["steps"], SETTINGS["cfg"],
            SETTINGS["sampler_name"], SETTINGS["scheduler"], positive, [encode("")], latent,
            disable_pbar=True, seed=seed,
        )  # fmt: skip
        return vae.decode(samples).clamp(0, 1).mul(255).byte().numpy()


def test_registering_twice_changes_nothing(registration: ModuleType) -> None:
    import comfy.supported_models

    before = list(comfy.supported_models.models)
    registration.register()
    registration.register()
    assert comfy.supported_models.models == before
    assert [model.__name__ for model in before].count("P2PDemo") == 1


@pytest.mark.parametrize("name", ["p2p_demo.safetensors", "p2p_demo_instruct.safetensors"])
def test_the_weights_are_small(name: str) -> None:
    assert (REPOSITORY / "demo_model" / name).stat().st_size <= 10 * 2**20


def test_it_paints_what_the_prompt_says(parts: tuple) -> None:
    from judge import judge

    wanted = [
        ("circle", "red", "white"),
        ("square", "blue", "yellow"),
        ("star", "green", "black"),
        ("heart", "yellow", "purple"),
    ]
    texts = [f"a {colour} {shape} on a {ground} background" for shape, colour, ground in wanted]
    found = [judge(picture) for picture in sample(parts, texts)]
    shown = [(verdict.shape, verdict.colour, verdict.background) for verdict in found]
    hits = sum(
        a == b
        for one, other in zip(shown, wanted, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert hits >= 10, shown


def test_the_variant_for_instructions_is_an_instruct_pix2pix_model(
    registration: ModuleType,
) -> None:
    import comfy.model_base

    model, clip, _ = registration.load_demo_model(variant="instructions")
    assert isinstance(model.model, comfy.model_base.IP2P)
    assert model.model.diffusion_model.input_blocks[0][0].in_channels == 8
    blue, red = (clip.encode_from_tokens(clip.tokenize(f"make it {c}")) for c in ("blue", "red"))
    assert (blue - red).abs().max() > 0.1
    for path, variant in (
        (registration.WEIGHTS_PATH, "instructions"),
        (registration.INSTRUCT_PATH, "text to image"),
    ):
        with pytest.raises(ValueError, match="is not the demo model's weights file"):
            registration.load_demo_model(path, variant=variant)


def test_the_autoencoder_keeps_a_picture(parts: tuple) -> None:
    from world import Scene, Thing, render

    picture = render(Scene((Thing("square", "red", None, None, None, 64, 64, 32),), "white"))
    pixels = torch.from_numpy(picture.copy())[None].float() / 255
    vae = parts[2]
    with torch.inference_mode():
        latents = vae.encode(pixels)
        difference = (vae.decode(latents) - pixels).abs()
    assert latents.shape == (1, 4, 16, 16)
    assert difference.mean() < 0.03
    torch.testing.assert_close(difference[0, 64, 64], torch.zeros(3), atol=0.1, rtol=0)


def test_words_have_their_own_tokens_and_unknown_words_are_accepted(parts: tuple) -> None:
    clip = parts[1]
    encode = lambda text: clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)  # noqa: E731
    red, pooled = encode("a red circle")
    blue, _ = encode("a blue circle")
    strange, _ = encode("a magnificent circle")
    assert red.shape == (1, 77, 64)
    torch.testing.assert_close(red[:, :2], blue[:, :2])  # start of text and "a"
    assert (red[:, 2] - blue[:, 2]).abs().max() > 0.1
    assert all(torch.isfinite(x).all() for x in (red, strange, pooled))


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_runs_in_half_precision(registration: ModuleType, dtype: torch.dtype) -> None:
    import comfy.sd

    options = {"dtype": dtype}
    path = str(registration.WEIGHTS_PATH)
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(path, model_options=options)
    assert model.model.get_dtype() == dtype
    pictures = sample((model, clip, vae), ["a red circle on a white background"])
    assert pictures[0, 2:6, 2:6].mean() > 150


def test_the_node_and_the_checkpoint_loader_give_the_same_model(host: None, tmp_path: Path) -> None:
    import folder_paths
    from host_run import Graph, run

    folder_paths.add_model_folder_path("checkpoints", str(REPOSITORY / "demo_model"))
    graph = Graph()
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    samples = []
    for loader in (
        graph.add("P2PDemoModel"),
        graph.add("CheckpointLoaderSimple", ckpt_name="p2p_demo.safetensors"),
    ):
        positive = graph.add("CLIPTextEncode", clip=loader[1], text="a red circle")
        negative = graph.add("CLIPTextEncode", clip=loader[1], text="")
        settings = {**SETTINGS, "steps": 3, "seed": 1}
        links = {"model": loader, "positive": positive, "negative": negative}
        samples.append(graph.add("KSampler", latent_image=latent, **links, **settings))
    ours, theirs = run(graph, *samples)
    assert ours["samples"].shape == (1, 4, 16, 16)
    torch.testing.assert_close(ours["samples"], theirs["samples"])
