"""The workflow templates: they fit the nodes of the running host, and the demo's ones run."""

from __future__ import annotations

import copy
from pathlib import Path

import folder_paths
import pytest
from host_run import Graph, Link, run
from PIL import Image
from ui_graphs import (
    FILES,
    WORKFLOWS,
    api_graph,
    input_specs,
    load_workflow,
    server_nodes,
    widget_names,
)

import nodes
from devtools.templates_graphs import templates

pytestmark = pytest.mark.usefixtures("host")
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
every_edit = pytest.mark.parametrize(
    "file",
    [file for file in FILES if "demo" in file.stem and "instruction" not in file.stem],
    ids=lambda file: file.stem,
)
THUMBNAIL_BYTES = 40_000
STEPS = 2


def test_every_template_has_a_file_and_a_small_picture() -> None:
    names = {template.name for template in templates()}
    assert {file.stem for file in FILES} == names
    pictures = list(WORKFLOWS.glob("*.jpg"))
    assert {picture.stem for picture in pictures} == names
    for picture in pictures:
        assert picture.stat().st_size <= THUMBNAIL_BYTES, picture.name
        with Image.open(picture) as image:
            image.verify()


@every_file
def test_nodes_are_those_of_the_host(file: Path) -> None:
    """Every type is registered; its sockets and outputs are the schema's.

    Newer hosts give further outputs to nodes of their own.
    """
    for node in server_nodes(load_workflow(file)):
        host_node = nodes.NODE_CLASS_MAPPINGS[node["type"]]
        inputs = {(name, type_) for name, type_, _ in input_specs(node["type"])}
        assert {(slot["name"], slot["type"]) for slot in node["inputs"]} == inputs
        outputs, known = [slot["type"] for slot in node["outputs"]], list(host_node.RETURN_TYPES)
        own = node["type"].startswith(("P2P", "IP2P"))
        assert outputs == known if own else outputs[: len(known)] == known


@every_file
def test_links_join_existing_sockets_of_one_type(file: Path) -> None:
    workflow = load_workflow(file)
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for number, source, output, target, slot, type_ in workflow["links"]:
        begin, end = by_id[source]["outputs"][output], by_id[target]["inputs"][slot]
        assert number in begin["links"]
        assert end["link"] == number
        assert begin["type"] == end["type"] == type_
    entered = sum(slot["link"] is not None for node in by_id.values() for slot in node["inputs"])
    assert entered == len(workflow["links"])


@every_file
def test_widgets_have_one_value_each(file: Path) -> None:
    for node in server_nodes(load_workflow(file)):
        assert len(node["widgets_values"]) == len(widget_names(node["type"])), node["type"]


@every_file
def test_file_is_what_the_generator_says(file: Path) -> None:
    """Otherwise write it again: python dev.py python -- -m devtools.templates_make"""
    [template] = [template for template in templates() if template.name == file.stem]
    graph = api_graph(load_workflow(file))
    assert list(graph) == list(template.graph)
    for node_id, node in template.graph.items():
        assert graph[node_id]["class_type"] == node["class_type"]
        assert graph[node_id]["inputs"].items() >= node["inputs"].items()


@every_file
def test_nodes_do_not_overlap(file: Path) -> None:
    title = 30
    boxes = [(*node["pos"], *node["size"]) for node in load_workflow(file)["nodes"]]
    for number, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:number]:
            apart = x >= x2 + w2 or x2 >= x + w or y - title >= y2 + h2 or y2 - title >= y + h
            assert apart


@every_edit
def test_demo_runs_and_edits(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's graph, with fewer steps: one picture for the source, one for each edit."""
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))  # for the previews
    graph = Graph()
    graph.prompt = copy.deepcopy(api_graph(load_workflow(file)))
    [decode] = ids_of(graph, "VAEDecode")
    [controller] = ids_of(graph, "P2PAttentionController")
    for node in graph.prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = STEPS
    pictures = run(graph, Link(decode))
    edits = sum(name.startswith("edit") for name in graph.prompt[controller]["inputs"])
    assert pictures.shape == (1 + edits, 128, 128, 3)
    for edited in pictures[1:]:
        assert (edited - pictures[0]).abs().max() > 0.01
    assert len(list(tmp_path.glob("**/*.png"))) > edits


def test_demo_follows_its_instruction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    graph = Graph()
    graph.prompt = api_graph(load_workflow(WORKFLOWS / "follow_instruction_demo.json"))
    [decode], [given] = ids_of(graph, "VAEDecode"), ids_of(graph, "ImageCompositeMasked")
    before, after = (picture[0] for picture in run(graph, Link(given), Link(decode)))
    assert after.shape == before.shape == (128, 128, 3)
    # It is still red on gray, and no longer the square.
    assert (after[64, 64] - before[64, 64]).abs().max() < 0.25
    assert (after[2, 2] - before[2, 2]).abs().max() < 0.25
    assert ((after - before).abs().amax(dim=-1) > 0.2).float().mean() > 0.02


def ids_of(graph: Graph, class_type: str) -> list[str]:
    return [name for name, node in graph.prompt.items() if node["class_type"] == class_type]
