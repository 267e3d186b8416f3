"""Who reads a node's output in the graph that the server runs now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server import PromptServer

Looks = Callable[[dict[str, Any]], bool]


def is_read(node: Any, output: int, looks: Looks) -> bool:
    """Whether another node takes this output and looks at what is asked about.

    True where that is not known, as without a server. node: the class that the host executes.
    looks: asked about every taker, {class_type, inputs} as in the server's API.
    """
    own = getattr(node.hidden, "unique_id", None)
    graphs = [graph for graph in _running_graphs() if own in graph]
    return not graphs or any(
        [own, output] in list(reader["inputs"].values()) and looks(reader)
        for graph in graphs
        for reader in graph.values()
    )


def _running_graphs() -> list[dict[str, Any]]:
    """What the server runs, in its API's format: {node id: {class_type, inputs}}."""
    queue = getattr(getattr(PromptServer, "instance", None), "prompt_queue", None)
    return [] if queue is None else [item[2] for item in queue.get_current_queue()[0]]
