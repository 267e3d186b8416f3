"""Runs graphs through ComfyUI's own executor, in this process.

A graph is built node by node; inputs are plain values or links. A node is a link to its first
output, `node[1]` to its second. Any Python object can be put in, and any link can be taken out:

    graph = Graph()
    text = graph.add("CLIPTextEncode", clip=graph.value(clip), text="a cat")
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    samples = graph.add("KSampler", model=graph.value(model), positive=text, ..., **SETTINGS)
    latents = run(graph, samples)["samples"]                # one link: its value
    samples, cond = run(graph, samples, text)               # several links: a list

`run` validates the graph as the server does and raises GraphError with the node's own message
when a node fails, Interrupted when the run was cancelled. `Host()` keeps the executor, and so
the host's cache, over several runs.
"""

from __future__ import annotations

import asyncio
import copy
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import execution

import headless
from headless import REPOSITORY, load_pack

host_nodes: Any = headless.host_nodes()
CORE_NODES = (
    *("custom_sampler", "latent", "mask", "pag", "sag", "cond", "freelunch", "ip2p"),
    *("model_advanced", "model_merging", "model_downscale", "hypertile", "nag", "tomesd", "cfg"),
    *("apg", "tcfg", "mahiro", "fresca", "eps", "attention_multiply", "differential_diffusion"),
    *("perpneg", "sd3", "flux", "slg", "easycache", "edit_model", "canny", "images"),
    *("qwen",),
)


class GraphError(Exception):
    """A node failed or the graph is not valid; the text is what the user would read.

    kind: the exception's type. place: the file that raised it, line: by which line of code. All are
    empty for a graph that is not valid by the host's own rules.
    """

    def __init__(self, text: str, kind: str = "", place: str = "", line: str = "") -> None:
        super().__init__(text)
        self.kind, self.place, self.line = kind, place, line

    @property
    def is_sentence(self) -> bool:
        """Whether it is the pack that speaks, and not torch or the host."""
        inside = Path(self.place).is_relative_to(REPOSITORY) if self.place else False
        tests = Path(self.place).is_relative_to(Path(REPOSITORY) / "tests")
        raised = self.line.startswith("raise ")
        return self.kind == "ValueError" and inside and raised and not tests


class Interrupted(Exception):
    """The run was cancelled."""


class Link:
    """One output of one node."""

    def __init__(self, node: str, output: int = 0) -> None:
        self.node, self.output = node, output

    def __getitem__(self, output: int) -> Link:
        return Link(self.node, output)

    def __iter__(self) -> None:
        raise TypeError("A link has no length; name its outputs with [0], [1] …")


class TestValue:
    """Puts a Python object into a graph."""

    __test__ = False
    held: dict[str, Any] = {}
    INPUT_TYPES = classmethod(lambda cls: {"required": {"key": ("STRING", {})}})
    RETURN_TYPES = ("*",)
    FUNCTION = "get"

    def get(self, key: str) -> tuple[Any]:
        return (self.held[key],)


class TestCall:
    """Puts a Python function into a graph, as a node of another pack."""

    __test__ = False
    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {"key": ("STRING", {})},
            "optional": {f"value_{number}": ("*", {}) for number in range(4)},
        }
    )
    RETURN_TYPES = ("*",)
    FUNCTION = "call"

    def call(self, key: str, **values: Any) -> tuple[Any]:
        return (TestValue.held[key](*values.values()),)


class TestKeep:
    """Takes an output out of a graph."""

    __test__ = False
    kept: dict[str, Any] = {}
    INPUT_TYPES = classmethod(lambda cls: {"required": {"value": ("*", {}), "key": ("STRING", {})}})
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "keep"

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> float:
        return float("nan")

    def keep(self, value: Any, key: str) -> tuple[()]:
        self.kept[key] = value
        return ()


class Graph:
    """A workflow in the format of the server's API."""

    def __init__(self) -> None:
        self.prompt: dict[str, dict[str, Any]] = {}
        self.values: dict[str, Any] = {}

    def add(self, class_type: str, **inputs: Any) -> Link:
        """A node; inputs that are None are left out. Dotted inputs: `**{"edits.edit": link}`."""
        name = str(len(self.prompt) + 1)
        self.prompt[name] = {
            "class_type": class_type,
            "inputs": {
                key: [value.node, value.output] if isinstance(value, Link) else value
                for key, value in inputs.items()
                if value is not None
            },
        }
        return Link(name)

    def value(self, value: Any) -> Link:
        """A node whose output is this very object."""
        key = str(id(value))
        self.values[key] = value
        return self.add("TestValue", key=key)

    def call(self, function: Callable, *links: Link) -> Link:
        """A node that gives the links' values to a function; its output is what that returns."""
        key = str(id(function))
        self.values[key] = function
        return self.add("TestCall", key=key, **{f"value_{i}": x for i, x in enumerate(links)})


class QuietServer:
    """What the executor talks to instead of the web server; remembers the messages."""

    client_id = None
    last_node_id = None
    last_prompt_id = None

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any]] = []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.messages.append((event, data))


class Host:
    """The host's executor; its cache lives as long as this object."""

    def __init__(self) -> None:
        self.server = QuietServer()
        arguments = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        cache: Any = execution.CacheType.CLASSIC
        self.executor = execution.PromptExecutor(self.server, cache, arguments)

    def run(self, graph: Graph, *links: Link) -> Any:
        """The values of the links: one value for one link, else a list."""
        prompt = copy.deepcopy(graph.prompt)  # the host writes into it
        keys = [uuid.uuid4().hex for _ in links]
        for index, (link, key) in enumerate(zip(links, keys, strict=True)):
            inputs = {"value": [link.node, link.output], "key": key}
            prompt[f"keep {index}"] = {"class_type": "TestKeep", "inputs": inputs}
        TestValue.held = graph.values
        self.execute(prompt)
        values = [TestKeep.kept.pop(key) for key in keys]
        return values[0] if len(values) == 1 else values

    def execute(self, prompt: dict[str, Any]) -> None:
        forget_dead_clones()
        run_id = uuid.uuid4().hex
        valid, error, outputs, node_errors = asyncio.run(
            execution.validate_prompt(run_id, prompt, None)
        )
        if not valid or node_errors:
            raise GraphError(f"{error} {node_errors}", *_raised_by_validation(node_errors))
        self.executor.execute(prompt, run_id, {}, outputs)
        for event, data in self.executor.status_messages:
            if event == "execution_error":
                text = f"{data['node_type']}: {data['exception_message']}"
                raise GraphError(text, data["exception_type"], *_place(data["traceback"]))
            if event == "execution_interrupted":
                raise Interrupted(data["node_type"])


def _raised_by_validation(node_errors: dict[str, Any]) -> tuple[str, ...]:
    """Kind, place and line of what a node's own validation raised; nothing if none did."""
    errors = [error["extra_info"] for node in node_errors.values() for error in node["errors"]]
    for error in errors:
        if "traceback" in error:
            return error["exception_type"], *_place(error["traceback"])
    return ()


def _place(traceback: Sequence[str]) -> tuple[str, str]:
    """The file of a traceback's last line of code, and that line."""
    frames = [
        (found[1], found[2])
        for line in traceback
        if (found := re.search(r'File "([^"]+)", line.*\n\s*(.*)', line))
    ]
    return frames[-1] if frames else ("", "")


def run(graph: Graph, *links: Link) -> Any:
    """Run a graph in a fresh executor."""
    return Host().run(graph, *links)


def forget_dead_clones() -> None:
    """Clones of a model that lives on cost the host a garbage collection in every later run."""
    loaded = comfy.model_management.current_loaded_models
    loaded[:] = [model for model in loaded if not model.is_dead()]


def load_host() -> None:
    """Register the nodes of these tests, the host's own that they need, and the pack."""
    host_nodes.NODE_CLASS_MAPPINGS.update(TestValue=TestValue, TestCall=TestCall, TestKeep=TestKeep)
    extras = Path(host_nodes.__file__).parent / "comfy_extras"
    for name in CORE_NODES:
        load_pack(extras / f"nodes_{name}.py", "comfy_extras")
    load_pack(REPOSITORY, "custom_nodes")
    comfy.model_management.interrupt_current_processing(False)
