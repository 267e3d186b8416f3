"""The pack's workflow templates, and how a graph of ComfyUI's API becomes one of its page.

`python dev.py python -- -m devtools.templates_make` writes them into workflows/.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Link = list[Any]  # [id of the node, number of its output], as in the API

PACK = "comfyui-p2p"
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
MUTED = 2  # the page's mode of a node that is switched off
OPTIONAL_SHAPE = 7  # how the page draws the socket of an optional input

TITLE, SLOT, LINE, TEXT = 30, 20, 24, 76  # heights
WIDTH, WIDTHS = 300, {"P2PDemoModel": 240, "PreviewImage": 350}
PICTURE = {"PreviewImage": 230, "P2PSweep": 300, "LoadImage": 260}  # space below the sockets
COLLAPSED = {"VAEEncode", "VAEDecode"}  # only their titles are drawn
ENDS, LETTER, NARROWEST = 60, 8, 225  # their width: beside the title, of a letter, at least
# The page's other way of drawing ("Nodes 2.0") makes nodes higher, and words that are shown do too.
GAP_X, GAP_Y, WORDS_GAP, COLLAPSED_GAP = 30, 40, 75, 12
WITH_WORDS = {"P2PEdit", "P2PWordSwap", "P2PRefine", "P2PReweight", "P2PLocalBlendMask"}
# The page opens a template in the middle three quarters of itself; here of 1600 x 1000 pixels.
ROOM = (1200, 735)
STAGE = 24  # the page's letters over a frame
NOTE_LETTERS, NOTE_LINE = 39, 21  # of a line, and its height


@dataclass
class Template:
    """A graph in the API's format, with a column and a title for every node.

    captions: of the thumbnail's pictures. models: the files that are not here; with them the
    thumbnail is a card that names what is done and, as model_title, with which model.
    """

    name: str
    note: str
    captions: tuple[str, ...] = ()
    model_title: str = ""
    graph: Json = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    app_inputs: list[tuple[str, str]] = field(default_factory=list)  # [(id of the node, widget)]
    app_outputs: list[str] = field(default_factory=list)  # ids of nodes
    models: list[dict[str, str]] = field(default_factory=list)
    muted: set[str] = field(default_factory=set)  # nodes that wait until somebody wakes them
    stages: dict[int, str] = field(default_factory=dict)  # titles over columns
    collapsed: set[str] = field(default_factory=set)  # kinds of nodes besides COLLAPSED

    def add(self, column: int, class_type: str, title: str = "", /, **inputs: Any) -> Link:
        """A node; returns a link to its first output. Columns fill from the top."""
        node_id = str(len(self.graph) + 1)
        self.graph[node_id] = {"class_type": class_type, "inputs": inputs}
        self.columns[node_id] = column
        if title:
            self.titles[node_id] = title
        return [node_id, 0]

    def mute(self, link: Link) -> Link:
        """A node that the page shows but does not run."""
        self.muted.add(link[0])
        return link

    @property
    def awake(self) -> Json:
        """The graph that runs."""
        return {name: node for name, node in self.graph.items() if name not in self.muted}


def app_mode(template: Template) -> Json:
    """What the page's App Mode shows of a graph: widgets to fill in, nodes whose results to see."""
    inputs = [[int(node_id), widget] for node_id, widget in template.app_inputs]
    outputs = [int(node_id) for node_id in template.app_outputs]
    return {"linearData": {"inputs": inputs, "outputs": outputs}} if inputs or outputs else {}


def output(link: Link, number: int) -> Link:
    """Another output of the same node."""
    return [link[0], number]


def page_workflow(template: Template, schemas: Mapping[str, Json]) -> Json:
    """The template in the format that ComfyUI's page saves and loads; schemas: /object_info."""
    nodes = [
        page_node(template, node_id, schemas[node["class_type"]])
        for node_id, node in template.graph.items()
    ]
    notes = notes_of(template, len(nodes) + 1)
    columns = {**template.columns, **{str(note["id"]): 0 for note in notes}}
    place_in_columns([*notes, *nodes], columns)  # the notes at the top left
    nodes += notes
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK}/{template.name}")),
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(links := connect(nodes, template.graph)),
        "nodes": nodes,
        "links": links,
        "groups": [
            group(nodes, columns, column, title) for column, title in template.stages.items()
        ],
        "config": {},
        "extra": app_mode(template),
        "version": 0.4,
    }


def page_node(template: Template, node_id: str, schema: Json) -> Json:
    """A node with its sockets, not yet linked, and its widgets' values in the schema's order."""
    class_type = schema["name"]
    given = template.graph[node_id]["inputs"]
    inputs = input_slots(schema)
    if unknown := set(given) - {slot["name"] for slot in inputs}:
        raise ValueError(f"{template.name}: {class_type} has no input {', '.join(unknown)}.")
    source = PACK if schema["python_module"].startswith("custom_nodes") else "comfy-core"
    properties: Json = {"cnr_id": source, "Node name for S&R": class_type}
    if files := [model for model in template.models if model["name"] in given.values()]:
        properties["models"] = files
    outputs = zip(schema["output_name"], schema["output"], strict=True)
    node: Json = {
        "id": int(node_id),
        "type": class_type,
        "pos": [0, 0],
        "size": node_size(schema, inputs),
        "flags": {"collapsed": True} if is_collapsed(template, class_type, given) else {},
        "order": int(node_id) - 1,
        "mode": MUTED if node_id in template.muted else 0,
        "inputs": inputs,
        "outputs": [{"name": name, "type": type_, "links": None} for name, type_ in outputs],
        "properties": properties,
        "widgets_values": widget_values(schema, given),
    }
    return {**node, "title": title} if (title := template.titles.get(node_id)) else node


def is_collapsed(template: Template, class_type: str, given: Json) -> bool:
    """A template that collapses nodes also does so with empty texts."""
    empty = bool(template.collapsed) and given.get("text") == ""
    return empty or class_type in COLLAPSED | template.collapsed


def specs(schema: Json) -> list[tuple[str, str, Json, bool]]:
    """(name, type, options, is it optional) of every input, in order."""
    found = []
    for part in ("required", "optional"):
        for name, (type_, *options) in schema["input"].get(part, {}).items():
            type_ = "COMBO" if isinstance(type_, list) else type_
            found.append((name, type_, options[0] if options else {}, part == "optional"))
    return found


def input_slots(schema: Json) -> list[Json]:
    """Sockets first, then widgets: that is the page's order."""
    sockets: list[Json] = []
    widgets: list[Json] = []
    for name, type_, _, optional in specs(schema):
        slot: Json = {"name": name, "type": type_, "link": None}
        if optional:
            slot["shape"] = OPTIONAL_SHAPE
        if type_ in WIDGET_TYPES:
            widgets.append({**slot, "widget": {"name": name}})
        else:
            sockets.append(slot)
    return sockets + widgets


def widget_values(schema: Json, given: Json) -> list[Any]:
    """The given values; defaults of what is not given or wired. A seed has a second widget."""
    values: list[Any] = []
    for name, type_, options, _ in specs(schema):
        if type_ in WIDGET_TYPES:
            value = given.get(name)
            values.append(options["default"] if value is None or isinstance(value, list) else value)
            if options.get("control_after_generate"):
                values.append("fixed")
    return values


def node_size(schema: Json, inputs: list[Json]) -> list[int]:
    sockets = sum("widget" not in slot for slot in inputs)
    height = SLOT * max(sockets, len(schema["output"])) + PICTURE.get(schema["name"], 0)
    for _, type_, options, _ in specs(schema):
        if type_ in WIDGET_TYPES:
            lines = 2 if options.get("control_after_generate") else 1
            height += TEXT if options.get("multiline") else LINE * lines
    return [WIDTHS.get(schema["name"], WIDTH), height + 14]


def notes_of(template: Template, number: int) -> list[Json]:
    """How to use it, and where its models' files come from."""
    if not template.models:
        return [note_node(number, template.note)]
    lines = [f"[{m['name']}]({m['url']}) in *models/{m['directory']}*" for m in template.models]
    files = "**Files**\n\n" + "\n".join(f"- {line}" for line in lines)
    told = note_node(number, template.note)
    return [told, note_node(number + 1, files, "The model's files")]


def note_node(number: int, text: str, title: str = "How to use this") -> Json:
    """A note exists in the page only; the server never sees it."""
    lines = sum(1 + len(line) // NOTE_LETTERS for line in text.split("\n"))
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": [0, 0],
        "size": [WIDTH, 40 + NOTE_LINE * lines],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": title,
        "properties": {},
        "widgets_values": [text],
        "color": "#432",
        "bgcolor": "#653",
    }


def group(nodes: list[Json], columns: Mapping[str, int], column: int, title: str) -> Json:
    """A frame around a column, with a title."""
    mine = [node for node in nodes if columns[str(node["id"])] == column]
    left, top = (min(node["pos"][axis] for node in mine) for axis in (0, 1))
    right, bottom = (
        max(node["pos"][axis] + _extent(node)[axis] for node in mine) for axis in (0, 1)
    )
    margin, above = GAP_X // 2 - 3, TITLE + STAGE + 20
    return {
        "id": column + 1,
        "title": title,
        "bounding": [
            left - margin, top - above, right - left + 2 * margin, bottom - top + above + margin,
        ],
        "color": "#8899aa",
        "font_size": STAGE,
        "flags": {},
    }  # fmt: skip


def connect(nodes: list[Json], graph: Json) -> list[list[Any]]:
    """Enter the graph's links into the nodes; returns the page's list of links."""
    by_id = {str(node["id"]): node for node in nodes}
    links: list[list[Any]] = []
    for node_id, api_node in graph.items():
        for slot, socket in enumerate(by_id[node_id]["inputs"]):
            value = api_node["inputs"].get(socket["name"])
            if isinstance(value, list):
                source = by_id[value[0]]["outputs"][value[1]]
                number = len(links) + 1
                socket["link"] = number
                source["links"] = [*(source["links"] or []), number]
                links.append([number, int(value[0]), value[1], int(node_id), slot, source["type"]])
    return links


def place_in_columns(nodes: list[Json], columns: Mapping[str, int]) -> None:
    """Columns from left to right, nodes from top to bottom, without overlaps.

    Columns that are too tall go on beside themselves; how tall that is decides how large the page
    can show the graph.
    """

    def scale(tallest: int) -> float:
        width, height = _placed(nodes, columns, tallest)
        return min(ROOM[0] / width, ROOM[1] / height)

    highest = max(node["size"][1] for node in nodes)
    _placed(nodes, columns, max(range(highest, highest + 1500, 20), key=scale))


def _placed(nodes: list[Json], columns: Mapping[str, int], tallest: int) -> tuple[int, int]:
    """Place them; width and height of all."""
    x = height = 0
    for column in range(1 + max(columns.values())):
        y = width = 0
        for node in (node for node in nodes if columns[str(node["id"])] == column):
            wide, high, gap = _extent(node)
            if y and y + high > tallest:
                x, y, width = x + width, 0, 0
            node["pos"] = [x, y]
            height = max(height, y + TITLE + high)
            y += high + TITLE + gap
            width = max(width, wide + GAP_X)
        x += width
    return x - GAP_X, height


def _extent(node: Json) -> tuple[int, int, int]:
    """Width and height as it is drawn, and the distance to the next below it."""
    if node["flags"].get("collapsed"):
        title = node.get("title", node["type"])
        width = max(ENDS + LETTER * len(title), NARROWEST)
        return min(width, node["size"][0]), 0, COLLAPSED_GAP
    return *node["size"], WORDS_GAP if node["type"] in WITH_WORDS else GAP_Y
