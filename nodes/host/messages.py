"""A line of text on a node in the page, as the host's own nodes show it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from comfy_api.latest import io
from server import PromptServer

Report = Callable[[str], None]


def text_on(node: type[io.ComfyNode]) -> Report:
    """What shows a text on this node while a graph runs. The node must ask for its unique_id."""
    return partial(_send, node.hidden.unique_id if node.hidden is not None else None)


def _send(node_id: str | None, text: str) -> None:
    server = getattr(PromptServer, "instance", None)  # there is none without a page
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)
