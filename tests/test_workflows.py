"""The workflow templates: they fit the nodes of the running host, and the demo's ones run."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import folder_paths
import pytest
import torch
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

sys.path.append(str(WORKFLOWS.parent / "demo_model"))
from book.judge import judge_pictures  # noqa: E402

pytestmark = pytest.mark.usefixtures("host")
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
every_edit = pytest.mark.parametrize(
    "file",
    [WORKFLOWS / f"{template.name}.json" for template in templates() if not template.models],
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
        assert not any(isinstance(value, list) for value in node["widgets_values"]), "a wire's"


@every_file
def test_file_is_what_the_generator_says(file: Path) -> None:
    """Otherwise write it again: python dev.py python -- -m devtools.templates_make"""
    [template] = [template for template in templates() if template.name == file.stem]
    graph = api_graph(load_workflow(file))
    assert list(graph) == list(template.awake)
    for node_id, node in template.awake.items():
        assert graph[node_id]["class_type"] == node["class_type"]
        assert graph[node_id]["inputs"].items() >= node["inputs"].items()


def drawn(file: Path) -> list[tuple[float, ...]]:
    """Left, top, width and height of nodes; of a collapsed one only its title, 225 wide, shows."""
    return [
        (*node["pos"], *((225, 0) if node["flags"].get("collapsed") else node["size"]))
        for node in load_workflow(file)["nodes"]
    ]


@every_file
def test_nodes_do_not_overlap(file: Path) -> None:
    title, boxes = 30, drawn(file)
    for number, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:number]:
            apart = x >= x2 + w2 or x2 >= x + w or y - title >= y2 + h2 or y2 - title >= y + h
            assert apart


@every_file
def test_a_template_is_large_enough_to_be_read(file: Path) -> None:
    """The page shows it in 1200 x 735 pixels of its 1600 x 1000, and letters from 57 % on."""
    boxes = drawn(file)
    width = max(x + w for x, _, w, _ in boxes) - min(x for x, *_ in boxes)
    height = max(y + h for _, y, _, h in boxes) - min(y for _, y, *_ in boxes) + 30
    assert min(1200 / width, 735 / height) > 0.572


@every_edit
def test_demo_runs_and_edits(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's graph, with fewer steps: one picture for the source, one for each edit."""
    for folder in ("temp", "output"):
        monkeypatch.setattr(folder_paths, f"{folder}_directory", str(tmp_path))
    graph = Graph()
    graph.prompt = copy.deepcopy(api_graph(load_workflow(file)))
    for node in graph.prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = STEPS
    decoded = ids_of(graph, "VAEDecode")
    pictures = run(graph, *map(Link, decoded))
    pictures = pictures if isinstance(pictures, list) else [pictures]
    for batch in pictures:
        assert batch.shape[1:] == (128, 128, 3)
        for edited in batch[1:]:
            assert (edited - batch[0]).abs().max() > 0.01
    assert len(list(tmp_path.glob("**/*.png"))) >= len(ids_of(graph, "PreviewImage"))


def test_demo_follows_its_instruction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    graph = Graph()
    graph.prompt = api_graph(load_workflow(WORKFLOWS / "08 Follow an instruction.json"))
    given, made = ids_of(graph, "VAEDecode")
    before, after = (picture[0] for picture in run(graph, Link(given), Link(made)))
    pictures = torch.stack((before, after)).mul(255).byte().numpy()
    seen = [(one.thing, one.colour, one.setting) for one in judge_pictures(pictures)]
    assert seen == [("car", "red", "beach"), ("car", "blue", "beach")]
    assert (after[:16] - before[:16]).abs().mean() < 0.1


def ids_of(graph: Graph, class_type: str) -> list[str]:
    return [name for name, node in graph.prompt.items() if node["class_type"] == class_type]
