"""A ComfyUI server of our own, and its HTTP API: queue a workflow, follow it, fetch pictures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from devtools.environment import Environment
from devtools.server import free_port, server_command

START_LIMIT = 300.0  # seconds, for slow machines that start for the first time
STOP_LIMIT = 10.0


class DemoError(Exception):
    """What went wrong, in one sentence for the user."""


class Comfy:
    """A running server: its process, its address, our session with it."""

    def __init__(
        self, process: asyncio.subprocess.Process, session: aiohttp.ClientSession, log: Path
    ) -> None:
        self.process, self.session, self.log = process, session, log
        self.client_id = uuid.uuid4().hex

    async def wait_until_ready(self) -> None:
        """Poll until the server answers; raises DemoError when it ends or takes too long."""
        clock = asyncio.get_running_loop().time
        limit = clock() + START_LIMIT
        while clock() < limit:
            if self.process.returncode is not None:
                raise DemoError(f"ComfyUI did not start; its log is {self.log}.")
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with self.session.get("/system_stats") as answer:
                    if answer.ok:
                        return
            await asyncio.sleep(0.2)
        raise DemoError(f"ComfyUI did not answer in {START_LIMIT:.0f} s; its log is {self.log}.")

    async def require_nodes(self, names: set[str]) -> None:
        """Raises DemoError when the pack, or a node of the workflow, has not been loaded."""
        async with self.session.get("/object_info") as answer:
            missing = names - set(await answer.json())
        if missing:
            raise DemoError(
                f"ComfyUI started without {', '.join(sorted(missing))}: the node pack did not "
                f"load; the reason is in {self.log}."
            )

    async def run(
        self, graph: dict[str, Any], on_progress: Callable[[str, int, int], None]
    ) -> dict[str, Any]:
        """Queue a workflow and follow it to its end; returns the outputs by node id.

        on_progress gets a node's id, its steps done and its steps in all.
        """
        url = f"/ws?clientId={self.client_id}"
        async with self.session.ws_connect(url, max_msg_size=0) as socket:
            prompt_id = await self.queue(graph)
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                event = message.json()
                data = event["data"]
                if data.get("prompt_id") != prompt_id:
                    continue
                if event["type"] == "progress":
                    on_progress(data["node"], data["value"], data["max"])
                raise_for_event(event)
                if event["type"] == "executing" and data["node"] is None:  # outputs are filed
                    return await self.outputs(prompt_id)
        raise DemoError(
            f"ComfyUI ended while it was working (out of memory?); its log is {self.log}."
        )

    async def queue(self, graph: dict[str, Any]) -> str:
        body = {"prompt": graph, "client_id": self.client_id}
        async with self.session.post("/prompt", json=body) as answer:
            reply = await answer.json()
        if not answer.ok:
            raise DemoError(refusal(reply))
        return reply["prompt_id"]

    async def outputs(self, prompt_id: str) -> dict[str, Any]:
        async with self.session.get(f"/history/{prompt_id}") as answer:
            return (await answer.json())[prompt_id]["outputs"]

    async def picture(self, image: dict[str, str]) -> bytes:
        """A picture's file, as ComfyUI saved it: with its workflow inside."""
        async with self.session.get("/view", params=image) as answer:
            answer.raise_for_status()
            return await answer.read()


def raise_for_event(event: dict[str, Any]) -> None:
    data = event["data"]
    if event["type"] == "execution_error":
        reason = " ".join(data["exception_message"].split())
        raise DemoError(f"{data['node_type']}: {reason}")
    if event["type"] == "execution_interrupted":
        raise DemoError("The run was cancelled.")


def refusal(reply: dict[str, Any]) -> str:
    """Why the server did not accept a workflow."""
    for node in (reply.get("node_errors") or {}).values():
        for error in node["errors"]:
            return f"{node['class_type']}: {error['message']}: {error['details']}"
    error = reply.get("error", {})
    return f"ComfyUI refused the workflow: {error.get('message', reply)} {error.get('details', '')}"


@contextlib.asynccontextmanager
async def running_server(base: Path, log: Path) -> AsyncIterator[Comfy]:
    """A ComfyUI on the base folder and a free port, ended in every case."""
    environment = Environment(Path(sys.prefix).parent)
    port = free_port()
    python, *command = server_command(environment, base, port, ["--disable-api-nodes"])
    wrapper = Path(__file__).parents[1] / "host_process.py"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(python, str(wrapper), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=variables,
            start_new_session=sys.platform != "win32",
        )
    try:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        address = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(address, timeout=timeout) as session:
            yield Comfy(process, session, log)
    finally:
        await stop(process)


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_LIMIT)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
