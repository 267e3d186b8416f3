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


def graph() -> dict[str, Any]:
    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

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


async def heard(comfy: Comfy) -> list[tuple[str, str]]:
    """The texts of a run: (node, text)."""
    texts = []
    url = f"/ws?clientId={comfy.client_id}"
    async with comfy.session.ws_connect(url, max_msg_size=0) as socket:
        await comfy.queue(graph())
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
            return await asyncio.wait_for(heard(comfy), 120)

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
