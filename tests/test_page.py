"""The pack in ComfyUI's own page: templates, alignment, slider, growing sockets, sentences."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from browser import Json, Page

REPOSITORY = Path(__file__).resolve().parents[1]
WORKFLOWS = REPOSITORY / "workflows"
DEMOS = sorted(path for path in WORKFLOWS.glob("*.json") if "P2PDemoModel" in path.read_text())
STEPS = 3
SOURCE, TARGET = "a cat on the grass", "a dog on the grass"
WORDS = ["a", "cat", "dog", "on", "the", "grass"]
BYPASSED, MUTED = 4, 2

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.lacking() is not None, reason=f"page: {browser.lacking()}"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser.served(tmp_path_factory.mktemp("page")) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, browser.NAMES)))
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=browser.FLAGS)
        yield started
        started.close()


CANVASES = {"classic": False, "nodes-2": True}
only_classic = pytest.mark.parametrize("page", ["classic"], indirect=True)


@pytest.fixture(scope="module", params=CANVASES)
def page(request: pytest.FixtureRequest, url: str, chromium: Any) -> Iterator[Page]:
    with browser.opened(chromium, url, nodes_2=CANVASES[request.param]) as page:
        yield page


def node(kind: str, **inputs: Any) -> Json:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def edit_graph(seed: int) -> Json:
    """P2P Edit to a sampler, to P2P Compare and to heat maps."""
    prompts = {"source_prompt": SOURCE, "target_prompt": TARGET}
    return {
        "1": node("P2PDemoModel"),
        "2": node("P2PEdit", model=["1", 0], clip=["1", 1], latent=["1", 3], **prompts),
        "3": node("CLIPTextEncode", clip=["1", 1], text=""),
        "4": node(
            "KSampler", model=["2", 0], positive=["2", 1], negative=["3", 0], seed=seed,
            latent_image=["2", 2], steps=STEPS, cfg=6.0, sampler_name="euler", scheduler="normal",
        ),
        "5": node("P2PCompare", record=["2", 3], samples=["4", 0], vae=["1", 2]),
        "7": node("P2PAttentionMaps", record=["2", 3], samples=["4", 0], words="grass"),
        "8": node("PreviewImage", images=["7", 0]),
    }  # fmt: skip


def load_graph(page: Page, graph: Json) -> None:
    page.tab.evaluate("g => app.loadApiJson(g, 'test')", graph)
    page.tab.evaluate(
        """async () => {
            app.graph.nodes.forEach((node, at) => {
                node.pos = [(at % 4) * 380, Math.floor(at / 4) * 520];
                for (const widget of node.widgets ?? [])
                    if (widget.name === "control_after_generate") widget.value = "fixed";
            });
            await app.loadGraphData(app.graph.serialize());  // older Nodes 2.0 see it only then
        }"""
    )
    page.tab.evaluate("Object.assign(app.canvas.ds, { scale: 0.8, offset: [100, 100] })")
    page.tab.wait_for_timeout(300)


def swap_graph(**swap: Any) -> Json:
    """P2P Word Swap to a sampler. The page keeps what the graph before had, unless it is given."""
    prompts = {"source_prompt": SOURCE, "target_prompt": TARGET, "word_windows": ""}
    return {
        "1": node("P2PDemoModel"),
        "2": node("P2PWordSwap", clip=["1", 1], **{**prompts, **swap}),
        "3": node("P2PAttentionController", model=["1", 0], latent=["1", 3], edit=["2", 0]),
        "4": node("CLIPTextEncode", clip=["1", 1], text=""),
        "5": node(
            "KSampler", model=["3", 0], positive=["3", 1], negative=["4", 0], seed=1,
            latent_image=["3", 2], steps=STEPS, cfg=6.0, sampler_name="euler", scheduler="normal",
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("PreviewImage", images=["6", 0]),
    }  # fmt: skip


def pictures(run: Json) -> int:
    return sum(len(output.get("images", [])) for output in run["outputs"].values())


every_demo = pytest.mark.parametrize("file", DEMOS, ids=lambda file: file.stem)


@every_demo
def test_a_demo_template_opens_and_is_saved(page: Page, file: Path) -> None:
    page.load(json.loads(file.read_text(encoding="utf-8")))
    sent, saved = page.graph(), page.saved()
    page.load(saved)
    assert sent and page.graph() == sent
    assert page.errors == []


@only_classic
@every_demo
def test_a_demo_template_runs(page: Page, file: Path) -> None:
    page.load(json.loads(file.read_text(encoding="utf-8")))
    page.set_everywhere(steps=STEPS)
    run = page.run()
    assert run["status"]["status_str"] == "success"
    assert pictures(run)
    saved = page.saved()
    page.load(saved)
    assert page.saved()["nodes"] == saved["nodes"], "what a run adds is not saved"
    assert page.errors == []


def test_words_are_chips_that_can_be_used(page: Page) -> None:
    load_graph(page, edit_graph(1))
    assert page.run()["status"]["status_str"] == "success"
    assert page.texts(".p2p-chip") == WORDS
    page.tab.locator(".p2p-chip", has_text="grass").click()
    choices = page.texts(".p2p-menu > button")
    assert choices == ["P2PEdit · blend_words", "P2PAttentionMaps · words"]
    page.tab.locator(".p2p-menu > button").first.click()
    assert page.value("P2PEdit", "blend_words") == "grass"
    page.tab.locator(".p2p-chip", has_text="dog").click()
    page.tab.locator(".p2p-menu > button").last.click()
    assert page.value("P2PAttentionMaps", "words") == "grass, dog"
    assert page.tab.locator(".p2p-menu").count() == 0
    assert page.errors == []


def test_a_window_is_dragged(page: Page) -> None:
    load_graph(page, swap_graph(word_windows="grass: 0-0.5"))
    page.run()
    page.tab.locator(".p2p-more").click()
    bar = page.tab.locator(".p2p-time.p2p-open").nth(1)  # dog
    drag(page, bar, 0.8, 0.4)
    assert page.value("P2PWordSwap", "word_windows") == "grass: 0-0.5\ndog: 0-0.4"
    drag(page, bar, 0.02, 0.2)
    assert page.value("P2PWordSwap", "word_windows") == "grass: 0-0.5\ndog: 0.2-0.4"
    drag(page, page.tab.locator(".p2p-time.p2p-open").last, 0.4, 0.9)
    assert page.value("P2PWordSwap", "self_replace_steps") == 0.9
    assert page.errors == []


def drag(page: Page, bar: Any, start: float, end: float) -> None:
    """With the mouse, from one share of a time line to another."""
    box = bar.bounding_box()
    height = box["y"] + box["height"] / 2
    page.tab.mouse.move(box["x"] + box["width"] * start, height)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + box["width"] * end, height, steps=3)
    page.tab.mouse.up()


def test_a_cached_alignment_is_shown_again(page: Page) -> None:
    load_graph(page, edit_graph(2))
    page.run()
    load_graph(page, edit_graph(2))
    assert page.texts(".p2p-chip") == []
    page.run()
    page.tab.locator(".p2p-chip").first.wait_for()


def test_source_and_edit_under_a_slider(page: Page) -> None:
    load_graph(page, edit_graph(3))
    page.run()
    frame = page.tab.locator(".p2p-frame")
    loaded = "image => image.complete && image.naturalWidth"
    page.tab.wait_for_timeout(500)
    assert [image.evaluate(loaded) for image in frame.locator("img").all()] == [128, 128]
    assert page.texts(".p2p-label") == ["cat → dog · 1 of 1"]
    box = frame.bounding_box()
    page.tab.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    share = frame.evaluate("frame => frame.style.getPropertyValue('--p2p-share')")
    assert float(share.rstrip("%")) == pytest.approx(25, abs=1)
    assert page.errors == []


def test_edit_sockets_grow(page: Page) -> None:
    def edits() -> list[str]:
        names = page.sockets("P2PAttentionController")
        more = names[names.index("inversion") :]
        assert {"positive", "extras_from"} < set(more) and not any("edit" in n for n in more)
        return [name for name in names if name.startswith("edit")]

    load_graph(page, swap_graph())
    assert edits() == ["edit", "edit_2"]
    page.wire("P2PWordSwap", 0, "P2PAttentionController", "edit_2")
    assert edits() == ["edit", "edit_2", "edit_3"]
    page.wire("CLIPTextEncode", 0, "P2PAttentionController", "positive")
    sent, saved = page.graph(), page.saved()
    page.load(saved)
    assert page.graph() == sent
    assert edits() == ["edit", "edit_2", "edit_3"]
    page.tab.evaluate(
        """() => {
            const found = app.graph.nodes.find((n) => n.comfyClass === "P2PAttentionController");
            found.disconnectInput(found.inputs.findIndex((input) => input.name === "edit_2"));
        }"""
    )
    page.tab.wait_for_timeout(100)
    assert edits() == ["edit", "edit_2"]
    [control] = [n for n in page.graph().values() if n["class_type"] == "P2PAttentionController"]
    assert "positive" in control["inputs"] and "edit_2" not in control["inputs"]


def test_a_sentence_before_the_run(page: Page) -> None:
    load_graph(page, swap_graph(source_prompt=" "))
    page.press_run()
    page.error("source_prompt is empty. Describe the picture in words").wait_for()
    page.tab.locator(".p2p-message").wait_for()
    assert page.texts(".p2p-message")[0].startswith("source_prompt is empty.")
    page.close_messages()


@pytest.mark.parametrize(
    ("widgets", "sampler", "message"),
    [
        ({"word_windows": "horse: 0-1"}, "euler", "'horse' is not in the prompt"),
        ({}, "dpm_adaptive", "The sampler dpm_adaptive chooses its steps"),
    ],
)
def test_a_sentence_of_the_run(
    page: Page, widgets: dict[str, str], sampler: str, message: str
) -> None:
    load_graph(page, swap_graph(**widgets))
    page.set("KSampler", sampler_name=sampler)
    page.run()
    toast = page.tab.locator(".p-toast-detail", has_text=message)
    toast.wait_for()
    assert page.texts(".p2p-message")[0].startswith(message)
    page.close_messages()


@only_classic
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (BYPASSED, "is bypassed and cannot pass its positive on. Wire a CLIPTextEncode"),
        (MUTED, "is muted, so KSampler gets no model, positive, latent. Bypass it instead"),
    ],
)
def test_a_controller_that_is_off_says_what_is_missing(page: Page, mode: int, message: str) -> None:
    load_graph(page, swap_graph())
    page.mode("P2PAttentionController", mode)
    page.press_run()
    page.tab.locator(".p-toast-detail", has_text=message).wait_for()
    assert page.tab.get_by_test_id("error-overlay").count() == 0
    page.close_messages()
    page.errors.clear()  # the page writes that sentence to its console


@only_classic
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("P2PAttentionController", BYPASSED), ("P2PWordSwap", BYPASSED), ("P2PWordSwap", MUTED)],
)
def test_the_plain_picture_with_a_positive(page: Page, kind: str, mode: int) -> None:
    load_graph(page, swap_graph())
    page.wire("CLIPTextEncode", 0, "P2PAttentionController", "positive")
    page.mode(kind, mode)
    run = page.run()
    assert run["status"]["status_str"] == "success" and pictures(run) == 1


@only_classic
def test_the_first_node_that_a_search_finds(page: Page) -> None:
    from playwright.sync_api import expect

    page.tab.evaluate("app.graph.clear()")
    page.tab.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    field = page.tab.get_by_placeholder(re.compile(r"^(Add a node|Search Nodes)\.\.\.$"))
    field.press_sequentially("prompt to prompt")
    results = page.tab.locator("[data-testid='result-item'], .p-autocomplete-option")
    expect(results.first).to_contain_text("P2P Edit")
    page.tab.keyboard.press("Escape")


def test_it_speaks_chinese(url: str, chromium: Any) -> None:
    with browser.opened(chromium, url, language="zh") as page:
        load_graph(page, swap_graph())
        page.wire("P2PWordSwap", 0, "P2PAttentionController", "edit_2")
        names = page.tab.evaluate(
            "() => app.graph.nodes.find((node) => node.comfyClass === 'P2PAttentionController')"
            ".inputs.map((input) => input.localized_name)"
        )
        assert names[:5] == ["模型", "Latent", "编辑", "编辑_2", "编辑_3"]  # the last one grew
        page.mode("P2PAttentionController", BYPASSED)
        page.press_run()
        page.tab.locator(".p-toast-detail", has_text="已被绕过，无法传递它的 正面条件").wait_for()
        page.close_messages()
        load_graph(page, swap_graph(source_prompt=" "))
        page.press_run()
        sentence = "source_prompt 是空的。请用词语描述图像"
        page.tab.locator(".p2p-message", has_text=sentence).wait_for()
        page.tab.locator(".p-toast-detail", has_text=sentence).wait_for()
        page.close_messages()
        load_graph(page, swap_graph(word_windows="horse: 0-1"))
        page.run()
        page.tab.locator(".p-toast-detail", has_text="中没有 'horse'。其中的词有").wait_for()


def test_both_languages_have_every_text() -> None:
    text = (REPOSITORY / "web" / "texts.js").read_text(encoding="utf-8")
    english, chinese = re.split(r"\n    zh: \{", text)
    keys = [re.findall(r"^ {8}(\w+):", part, re.MULTILINE) for part in (english, chinese)]
    assert keys[0] == keys[1] and len(keys[0]) > 20
