"""Workflows as ComfyUI's page saves them: read, checked against the nodes, made ready to run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from host_run import REPOSITORY

import nodes

WORKFLOWS = REPOSITORY / "workflows"
FILES = sorted(WORKFLOWS.glob("*.json"))
PAGE_ONLY = {"Note", "MarkdownNote"}  # drawn by the page, unknown to the server
MUTED = 2
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}

Json = dict[str, Any]


def load_workflow(file: Path) -> Json:
    return json.loads(file.read_text(encoding="utf-8"))


def server_nodes(workflow: Json) -> list[Json]:
    """The nodes that the server sees."""
    return [node for node in workflow["nodes"] if node["type"] not in PAGE_ONLY]


def input_specs(class_type: str) -> Iterator[tuple[str, str, Json]]:
    """(name, type, options) of every input, in the order of the page's widgets."""
    parts = nodes.NODE_CLASS_MAPPINGS[class_type].INPUT_TYPES()
    for part in ("required", "optional"):
        for name, (type_, *options) in parts.get(part, {}).items():
            yield name, "COMBO" if isinstance(type_, list) else type_, *(options or [{}])


def widget_names(class_type: str) -> list[str]:
    """One name for each widget's value; a seed's control widget has no input: an empty name."""
    names = []
    for name, type_, options in input_specs(class_type):
        if type_ in WIDGET_TYPES and not options.get("forceInput"):
            names.append(name)
            if options.get("control_after_generate"):
                names.append("")
    return names


def api_graph(workflow: Json) -> Json:
    """What the page sends to the server: class types, widgets' values, links; no muted nodes."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in server_nodes(workflow):
        if node["mode"] == MUTED:
            continue
        values = zip(widget_names(node["type"]), node["widgets_values"], strict=True)
        inputs = {name: value for name, value in values if name}
        for slot in node["inputs"]:
            if slot["link"] is not None:
                inputs[slot["name"]] = links[slot["link"]]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph
