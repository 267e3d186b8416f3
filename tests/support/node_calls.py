"""The pack's nodes and the host's, called in this process without a graph."""

from __future__ import annotations

from typing import Any


class Nodes:
    """All registered nodes, once ComfyUI has started here."""

    def __init__(self) -> None:
        import comfy.utils
        import host_run

        import nodes

        host_run.load_host()
        comfy.utils.PROGRESS_BAR_ENABLED = False
        self.host = nodes

    def call(self, name: str, **inputs: Any) -> Any:
        """The outputs of one node."""
        return self.host.NODE_CLASS_MAPPINGS[name].execute(**inputs).args
