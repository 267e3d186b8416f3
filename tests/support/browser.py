"""ComfyUI's own page in headless Chromium, on a real server with this clone in it.

The pages of tests see no network but that server. Chromium is the system's (Debian and Ubuntu:
apt-get install chromium), its driver playwright's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devtools.environment import REPOSITORY, Environment
from devtools.server import PACK_NAME, free_port, prepare_base_folder, server_command

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
]
VIEW = {"width": 1600, "height": 1000}
START_LIMIT, RUN_LIMIT = 180.0, 120.0  # seconds
STARTED = "window.app?.graph && window.app.extensionManager && window.app.canvas"
Json = dict[str, Any]


def lacking() -> str | None:
    """What keeps the tests of the page from running here."""
    if not any(map(shutil.which, NAMES)):
        return "no Chromium (on Debian and Ubuntu: apt-get install chromium)"
    try:
        import playwright.sync_api  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "no playwright (requirements-dev.txt)"
    return None


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server on a fresh base folder, ended in every case."""
    base, port = prepare_base_folder(folder), free_port()
    environment = Environment(Path(sys.prefix).parent)
    python, *command = server_command(environment, base, port, ["--disable-api-nodes"])
    wrapper = REPOSITORY / "devtools" / "host_process.py"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    log, url = base / "comfyui.log", f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, str(wrapper), *command],
            stdin=subprocess.PIPE, stdout=output, stderr=output, env=variables,
        )  # fmt: skip
    try:
        limit = time.monotonic() + START_LIMIT
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"ComfyUI did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError, urllib.error.URLError):
        return bool(call(f"{url}/system_stats"))
    return False


def call(url: str) -> Any:
    """The JSON of a GET."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url) as answer:
        return json.load(answer)


@contextlib.contextmanager
def opened(browser: Any, url: str, nodes_2: bool = False, language: str = "en") -> Iterator[Page]:
    """The page on a server, with the classic canvas or Nodes 2.0."""
    context = browser.new_context(viewport=VIEW)
    tab = context.new_page()
    tab.set_default_timeout(15_000)
    page = Page(tab, url)
    settings = {"Comfy.VueNodes.Enabled": nodes_2, "Comfy.Locale": language}
    body = json.dumps({"Comfy.TutorialCompleted": True, **settings}).encode()
    head = {"Content-Type": "application/json"}
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        urllib.request.Request(f"{url}/api/settings", body, head)
    ).close()
    tab.goto(url)
    tab.wait_for_function(STARTED, timeout=60_000)
    tab.wait_for_timeout(500)
    try:
        yield page
    finally:
        context.close()


class Page:
    """A tab with the page in it. errors: what it or its console complained of."""

    def __init__(self, tab: Any, url: str) -> None:
        self.tab, self.url = tab, url
        self.errors: list[str] = []
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("console", self._console)

    def _console(self, message: Any) -> None:
        place = (message.location or {}).get("url", "")
        about_us = PACK_NAME in place or "p2p" in message.text.lower()
        if message.type == "error" and about_us:
            self.errors.append(message.text)

    def load(self, workflow: Json) -> None:
        self.tab.evaluate("w => app.loadGraphData(w)", workflow)
        self.tab.wait_for_timeout(300)

    def graph(self) -> Json:
        """What the page would send to the server."""
        return self.tab.evaluate("async () => (await app.graphToPrompt()).output")

    def saved(self) -> Json:
        return self.tab.evaluate("app.graph.serialize()")

    def set(self, kind: str, **values: Any) -> None:
        """Widgets' values of the first node of a kind."""
        self.tab.evaluate(
            """([kind, values]) => {
                const node = app.graph.nodes.find((node) => node.comfyClass === kind);
                for (const [name, value] of Object.entries(values))
                    node.widgets.find((widget) => widget.name === name).value = value;
            }""",
            [kind, values],
        )

    def set_everywhere(self, **values: Any) -> None:
        """Widgets' values of all nodes that have them."""
        self.tab.evaluate(
            """(values) => {
                for (const widget of app.graph.nodes.flatMap((node) => node.widgets ?? []))
                    if (widget.name in values) widget.value = values[widget.name];
            }""",
            values,
        )

    def value(self, kind: str, name: str) -> Any:
        return self.tab.evaluate(
            """([kind, name]) => app.graph.nodes.find((node) => node.comfyClass === kind)
                .widgets.find((widget) => widget.name === name).value""",
            [kind, name],
        )

    def mode(self, kind: str, mode: int) -> None:
        self.tab.evaluate(
            """([kind, mode]) => {
                app.graph.nodes.find((node) => node.comfyClass === kind).mode = mode;
            }""",
            [kind, mode],
        )

    def wire(self, source: str, output: int, target: str, name: str) -> None:
        """Wire an output of the first node of a kind to an input of another."""
        self.tab.evaluate(
            """([source, output, target, name]) => {
                const find = (kind) => app.graph.nodes.find((node) => node.comfyClass === kind);
                const inputs = find(target).inputs;
                const slot = inputs.findIndex((input) => input.name === name);
                find(source).connect(output, find(target), slot);
            }""",
            [source, output, target, name],
        )
        self.tab.wait_for_timeout(100)

    def sockets(self, kind: str) -> list[str]:
        """The names of the sockets that a node shows."""
        return self.tab.evaluate(
            """(kind) => app.graph.nodes.find((node) => node.comfyClass === kind).inputs
                .filter((input) => !input.widget).map((input) => input.name)""",
            kind,
        )

    def press_run(self) -> None:
        self.tab.get_by_test_id("queue-button").click()

    def run(self) -> Json:
        """Press the page's Run; the server's record of that run, once it has ended."""
        before = set(call(f"{self.url}/history"))
        self.press_run()
        limit = time.monotonic() + RUN_LIMIT
        while not (new := set(history := call(f"{self.url}/history")) - before):
            if time.monotonic() > limit:
                raise TimeoutError("The graph did not run to its end.")
            self.tab.wait_for_timeout(100)
        self.tab.wait_for_timeout(300)
        return history[new.pop()]

    def error(self, sentence: str) -> Any:
        """A message with it: the page's overlay, on older ones a dialog; or what pops up."""
        kinds = "[data-testid='error-overlay'], .p-dialog-content, .p-toast-detail"
        return self.tab.locator(kinds, has_text=sentence)

    def close_messages(self) -> None:
        """Of errors: the host's own, and those that pop up."""
        for button in (".p-dialog-close-button", ".p-toast-close-button"):
            for found in self.tab.locator(button).all():
                found.click()
            self.tab.wait_for_timeout(500)  # they fade out
        for found in self.tab.get_by_test_id("error-overlay-dismiss").all():
            found.click()

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.tab.locator(selector).all_inner_texts()]
