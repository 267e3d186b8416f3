"""Opens the workflow templates in ComfyUI's own page, compares, queues and photographs them.

Needs a running server (`python dev.py serve`), Chromium and playwright; start it with a Python
that has playwright, from the repository's root:

    python -m devtools.templates_page --url http://127.0.0.1:8188 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from devtools.templates import PACK, Template, page_workflow
from devtools.templates_graphs import templates

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LIMIT = 300  # seconds for a run
VIEW = {"width": 2000, "height": 1000}
LOAD = """async (workflow) => {
    await app.loadGraphData(workflow);
    app.canvas.ds.fitToBounds?.(app.graph._nodes.reduce((box, node) => {
        const [x, y, w, h] = node.getBounding();
        const right = Math.max(box[0] + box[2], x + w), bottom = Math.max(box[1] + box[3], y + h);
        const left = Math.min(box[0], x), top = Math.min(box[1], y);
        return [left, top, right - left, bottom - top];
    }, [...app.graph._nodes[0].getBounding()]), { zoom: 0.85 });
    const { output } = await app.graphToPrompt();
    const boxes = app.graph._nodes.map(n => [n.title, ...n.getBounding()]);
    return { output, boxes, saved: app.graph.serialize() };
}"""


def call(url: str, body: Any = None) -> Any:
    """GET, or POST of JSON; the reply's JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def differences(template: Template, page: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """What the page made otherwise than the template says."""
    found = []
    for node_id, node in template.graph.items():
        got = page["output"].get(node_id, {"class_type": "nothing", "inputs": {}})
        if got["class_type"] != node["class_type"]:
            found.append(f"node {node_id}: {got['class_type']} instead of {node['class_type']}")
        for name, value in node["inputs"].items():
            if (seen := got["inputs"].get(name)) != value:
                found.append(f"{node['class_type']}.{name}: {seen!r} instead of {value!r}")
        more = set(got["inputs"]) - set(node["inputs"])
        found += [
            f"{node['class_type']}.{name}: the page added {got['inputs'][name]!r}"
            for name in sorted(more)
            if got["inputs"][name] != default(schemas[node["class_type"]], name)
        ]
    if more := set(page["output"]) - set(template.graph):
        found.append(f"nodes {sorted(more)} were added")
    return [*found, *saved_differences(page_workflow(template, schemas), page["saved"])]


def default(schema: dict[str, Any], name: str) -> Any:
    parts = schema["input"]
    spec = {**parts.get("required", {}), **parts.get("optional", {})}[name]
    return spec[1].get("default")


def saved_differences(ours: dict[str, Any], page: dict[str, Any]) -> list[str]:
    """Sockets, widgets and links, as the page would save them, against the file's."""
    found = []
    for mine, its in zip(ours["nodes"], sorted(page["nodes"], key=lambda n: n["id"]), strict=True):
        for part in ("inputs", "outputs"):
            keys = ("name", "type", "link", "links")
            one, two = ([[s.get(k) for k in keys] for s in node[part]] for node in (mine, its))
            if one != two:
                found.append(f"{mine['type']} {part}: the page saves {two}, the file has {one}")
        if mine["widgets_values"] != (values := its.get("widgets_values", [])):
            found.append(f"{mine['type']}: widgets {values}, the file has {mine['widgets_values']}")
        if mine["size"] != its["size"]:
            found.append(f"{mine['type']}: size {its['size']}, the file has {mine['size']}")
    if sorted(ours["links"]) != sorted(page["links"]):
        found.append(f"links: {page['links']} instead of {ours['links']}")
    return found


def overlaps(boxes: list[list[Any]]) -> list[str]:
    found = []
    for number, (name, x, y, w, h) in enumerate(boxes):
        for other, x2, y2, w2, h2 in boxes[:number]:
            if x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h:
                found.append(f"{name} lies over {other}")
    return found


def queue(url: str, page: Any) -> str:
    """Press the page's Run and wait for the end; one line about it."""
    before, start = set(call(f"{url}/history")), time.monotonic()
    page.evaluate("app.queuePrompt(0)")
    while not (new := set(history := call(f"{url}/history")) - before):
        if time.monotonic() - start > LIMIT:
            return "error: it did not run"
        page.wait_for_timeout(1000)
    status = history[new.pop()]["status"]["status_str"]
    return f"{status}, {time.monotonic() - start:.1f} s"


def show_templates(page: Any, picture: Path) -> None:
    """Photograph the pack's templates in the page's dialog, and close it."""
    entry = page.get_by_text(PACK, exact=True)
    if not entry.count():
        page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    entry.first.click()
    page.wait_for_timeout(2000)
    page.screenshot(path=picture)
    page.keyboard.press("Escape")
    page.wait_for_timeout(1000)


def main() -> int:
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8188")
    parser.add_argument("--out", type=Path, default=Path("p2p-demo/templates"))
    parser.add_argument("--no-queue", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    schemas = call(f"{arguments.url}/object_info")
    checkpoints = schemas["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    failed = False
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport=VIEW)
        page.goto(arguments.url)
        page.wait_for_function("window.app?.graph && window.app.extensionManager", timeout=120_000)
        page.wait_for_timeout(5000)  # the page opens its last workflow, or its welcome
        show_templates(page, arguments.out / "dialog.png")
        for template in templates():
            file = WORKFLOWS / f"{template.name}.json"
            result = page.evaluate(LOAD, json.loads(file.read_text(encoding="utf-8")))
            found = differences(template, result, schemas) + overlaps(result["boxes"])
            status = "not queued"
            if not arguments.no_queue and not (template.models and not checkpoints):
                status = queue(arguments.url, page)
            page.wait_for_timeout(2000)
            page.screenshot(path=arguments.out / f"{template.name}.png")
            failed |= bool(found) or "error" in status
            lines = [f"{template.name}: {status}", *(f"  {line}" for line in found)]
            sys.stdout.write("\n".join(lines) + "\n")
        browser.close()
    sys.stdout.write(f"{PACK}: screenshots in {arguments.out}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
