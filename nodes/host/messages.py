"""What a node shows in the page: a line of text, as the host's own nodes do, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from comfy_api.latest import io, ui
from server import PromptServer
from torch import Tensor

Report = Callable[[str], None]


def text_on(node: type[io.ComfyNode]) -> Report:
    """What shows a text on this node while a graph runs. The node must ask for its unique_id."""
    return partial(_send, node.hidden.unique_id if node.hidden is not None else None)


def pictures_for_page(pictures: Tensor, name: str) -> list[dict[str, str]]:
    """Save pictures (B, H, W, 3) for the page to fetch; where they are, nothing without a page."""
    if getattr(PromptServer, "instance", None) is None:
        return []
    saved = ui.ImageSaveHelper.save_images(
        pictures, filename_prefix=name, folder_type=io.FolderType.temp, cls=None, compress_level=1
    )
    return [dict(file) for file in saved]


def _send(node_id: str | None, text: str) -> None:
    server = getattr(PromptServer, "instance", None)  # there is none without a page
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)
