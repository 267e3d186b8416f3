"""What nodes say in the page, heard from a real server by its own protocol."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devtools.demo.client import Comfy, raise_for_event, running_server
from devtools.server import prepare_base_folder

TEXT = 3  # the server's number of a binary message that carries a text
STEPS = 8


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def doubtful() -> dict[str, Any]:
    """A graph that runs, with all that can be asked for in vain."""
    prompts = {"source_prompt": "a red square", "target_prompt": "a red square"}
    return {
        "model": node("P2PDemoModel", variant="instructions"),
        "same": node("P2PWordSwap", clip=["model", 1], **prompts),
        "scaled": node("P2PReweight", edit=["same", 0], words="red", scale=1.0),
        "size": node("EmptyLatentImage", width=256, height=256, batch_size=1),
        "control": node(
            "P2PAttentionController", model=["model", 0], latent=["size", 0], edit=["scaled", 0]
        ),
        "one node": node(
            "P2PEdit", model=["model", 0], clip=["model", 1], latent=["model", 3],
            **{**prompts, "target_prompt": "a blue square"},
        ),
        "sampler": node(
            "KSampler", model=["control", 0], positive=["control", 1], negative=["empty", 0],
            latent_image=["control", 2], seed=1, steps=1, cfg=1.0, sampler_name="euler",
            scheduler="normal", denoise=1.0,
        ),
        "small": node(
            "KSampler", model=["one node", 0], positive=["one node", 1], seed=1, steps=1, cfg=1.0,
            negative=["empty", 0], latent_image=["one node", 2], sampler_name="euler",
            scheduler="normal", denoise=1.0,
        ),
        "empty": node("CLIPTextEncode", clip=["model", 1], text=""),
        "decode": node("VAEDecode", samples=["small", 0], vae=["model", 2]),
        "large": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "show": node("PreviewImage", images=["decode", 0]),
        "show large": node("PreviewImage", images=["large", 0]),
    }  # fmt: skip


def photo() -> dict[str, Any]:
    return {
        "model": node("P2PDemoModel"),
        "photo": node("EmptyImage", width=128, height=128, batch_size=1, color=0xD62728),
        "encoded": node("VAEEncode", pixels=["photo", 0], vae=["model", 2]),
        "text": node("CLIPTextEncode", clip=["model", 1], text="a red square"),
        "empty": node("CLIPTextEncode", clip=["model", 1], text=""),
        "invert": node(
            "P2PDDIMInvert", model=["model", 0], positive=["text", 0], latent=["encoded", 0],
            steps=STEPS, scheduler="normal", fixed_point_iterations=1,
        ),
        "optimize": node(
            "P2PNullTextOptimize", model=["model", 0], inversion=["invert", 0],
            positive=["text", 0], negative=["empty", 0], cfg=7.5, inner_steps=1,
            learning_rate=0.01, early_stop=1e-5,
        ),
        "decode": node("VAEDecode", samples=["optimize", 2], vae=["model", 2]),
        "show": node("PreviewImage", images=["decode", 0]),
    }  # fmt: skip


async def heard(comfy: Comfy, graph: dict[str, Any]) -> list[tuple[str, str]]:
    """The texts of a run: (node, text)."""
    texts = []
    url = f"/ws?clientId={comfy.client_id}"
    async with comfy.session.ws_connect(url, max_msg_size=0) as socket:
        await comfy.queue(graph)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                kind, length = struct.unpack(">II", message.data[:8])
                if kind == TEXT:
                    node, text = message.data[8 : 8 + length], message.data[8 + length :]
                    texts.append((node.decode(), text.decode()))
            elif message.type is aiohttp.WSMsgType.TEXT:
                event = message.json()
                raise_for_event(event)
                if event["type"] == "executing" and event["data"]["node"] is None:
                    break
    return texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    async def run() -> list[tuple[str, str]]:
        base = prepare_base_folder(tmp_path_factory.mktemp("messages"))
        async with running_server(base, Path(base) / "comfyui.log") as comfy:
            await comfy.wait_until_ready()
            runs = [heard(comfy, graph) for graph in (photo(), doubtful())]
            return [text for run in runs for text in await asyncio.wait_for(run, 120)]

    return asyncio.run(run())


def test_the_residual_of_an_inversion(texts: list[tuple[str, str]]) -> None:
    [said] = [text for node, text in texts if node == "invert"]
    before, value = said.split(": ")
    assert before == "largest residual of a step"
    assert 0 < float(value) < 1


def test_the_loss_of_an_optimisation_and_its_cost(texts: list[tuple[str, str]]) -> None:
    *steps, cost = [text for node, text in texts if node == "optimize"]
    assert [step.split(",")[0] for step in steps] == [
        f"step {i + 1} of {STEPS}" for i in range(STEPS)
    ]
    assert all(float(step.split("loss ")[1]) >= 0 for step in steps)
    assert "model evaluations and" in cost


@pytest.mark.parametrize(
    ("node", "beginning"),
    [
        ("model", "Sampled at 256x256: the demo model knows pictures of 128x128"),
        ("same", "Source and target prompt are the same"),
        ("scaled", "A scale of 1 leaves the words as they are."),
        ("control", "This model follows instructions on a given picture, and there is none here."),
        ("one node", "This model follows instructions on a given picture"),
    ],
)
def test_what_was_asked_for_in_vain(
    texts: list[tuple[str, str]], node: str, beginning: str
) -> None:
    [said] = [text for name, text in texts if name == node]
    assert said.startswith(beginning)
