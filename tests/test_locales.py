"""The pack's texts are there in English and Chinese, and the Chinese translates today's English."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import pytest
from app.custom_node_manager import CustomNodeManager
from host_run import host_nodes

from devtools import locales

REPOSITORY = Path(__file__).resolve().parents[1]
RENEW = "run `python dev.py python -- -m devtools.locales` and write what it lists"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
LINK = re.compile(r"\]\(([^)]+)\)")
CODE = re.compile(r"`[^`\n]+`")
FILLED = re.compile(r"\{[^{}]*\}")


@pytest.fixture
def nodes(host: None) -> list[Any]:
    known = host_nodes.NODE_CLASS_MAPPINGS
    return [node for name, node in known.items() if re.match("I?P2P", name)]


def test_the_english_texts_are_those_of_the_nodes(nodes: list[Any]) -> None:
    assert locales.read_texts("en") == locales.flat(locales.node_texts(nodes)), RENEW


def test_every_text_of_a_node_is_there_in_chinese() -> None:
    english, chinese = locales.read_texts("en"), locales.read_texts("zh")
    assert len(english) > 300
    assert list(chinese) == list(english), RENEW


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_shows_the_texts_as_they_are(language: str) -> None:
    """The page reads names and descriptions as vue-i18n's messages, where these signs do things."""
    for at, text in locales.read_texts(language).items():
        assert text.strip() == text != "" and not set(text) & set("{}@|"), at


def test_a_translation_keeps_the_figures() -> None:
    english, chinese = locales.read_texts("en"), locales.read_texts("zh")
    for at, text in english.items():
        if at[-1] != "name":
            assert CHINESE.search(chinese[at]), at
        assert set(NUMBER.findall(text)) <= set(NUMBER.findall(chinese[at])), at


def test_names_in_one_node_differ() -> None:
    """Two inputs of one name could not be told apart in an error or in the help."""
    for node, texts in locales.nested(locales.read_texts("zh")).items():
        for slots in (texts["inputs"], texts.get("outputs", {})):
            names = [slot["name"] for slot in slots.values()]
            assert len(set(names)) == len(names), node


def test_every_page_is_translated(nodes: list[Any]) -> None:
    pages = locales.pages()
    assert set(pages) == {"README", *(node.define_schema().node_id for node in nodes)}
    renew = "translate it, then: python dev.py python -- -m devtools.locales --translated PAGE"
    faults = {name: fault for name, both in pages.items() if (fault := locales.page_fault(*both))}
    assert not faults, renew


@pytest.mark.parametrize("name", locales.pages())
def test_a_page_keeps_code_figures_and_pictures(name: str) -> None:
    english, chinese = (page.read_text(encoding="utf-8") for page in locales.pages()[name])
    english = english.replace("[中文](README.zh.md)", "")  # each points at the other
    for parts in (NUMBER, CODE, LINK):
        assert set(parts.findall(english)) <= set(parts.findall(chinese))
    assert english.count("\n## ") == chinese.count("\n## ")


@pytest.mark.usefixtures("host")
def test_the_host_serves_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p2p").symlink_to(REPOSITORY, target_is_directory=True)
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "custom_nodes", ([str(tmp_path)], set())
    )
    served = CustomNodeManager().build_translations()
    assert served["en"]["nodeDefs"]["P2PEdit"]["display_name"] == "P2P Edit"
    assert served["zh"]["nodeDefs"]["P2PEdit"]["display_name"] == "P2P 编辑"


def test_the_categories_have_chinese_names(nodes: list[Any]) -> None:
    main = json.loads((locales.LOCALES / "zh" / "main.json").read_text(encoding="utf-8"))
    folders = {part for node in nodes for part in node.define_schema().category.split("/")}
    assert set(main["nodeCategories"]) == folders - {"p2p"}


def test_the_page_scripts_say_the_same_in_both_languages() -> None:
    scripts = {
        path.name: path.read_text(encoding="utf-8") for path in (REPOSITORY / "web").glob("*.js")
    }
    tables = re.split(r"\n    (?:en|zh): \{", scripts.pop("texts.js"))[1:]
    english, chinese = (
        dict(re.findall(r"^ {8}(\w+):\s((?:.|\n(?! {8}\w|    \}))*)", table, re.MULTILINE))
        for table in tables
    )
    assert list(english) == list(chinese) and len(english) > 20
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[key])), key
    said = {key for text in scripts.values() for key in re.findall(r'\bsay\("(\w+)"', text)}
    assert said and said <= set(english)


def test_a_changed_text_takes_its_translation_with_it() -> None:
    before = {("A", "description"): "old", ("A", "display_name"): "name"}
    chinese = {("A", "display_name"): "名称", ("A", "description"): "旧", ("B",): "没有"}
    now = {**before, ("A", "description"): "new"}
    assert locales.kept(chinese, before, now) == {("A", "display_name"): "名称"}
    assert list(locales.kept(chinese, before, before)) == list(before)


def test_the_program_keeps_what_is_current_and_lists_the_rest(
    nodes: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    shutil.copytree(locales.LOCALES, tmp_path, dirs_exist_ok=True)
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*.json")}
    monkeypatch.setattr(locales, "LOCALES", tmp_path)
    monkeypatch.setattr(locales, "_pack_nodes", lambda: nodes)
    assert locales.main([]) == 0 and capsys.readouterr().out == ""
    assert before == {path: path.read_bytes() for path in before}
    at = ("P2PEdit", "inputs", "clip", "tooltip")
    english, was = locales.read_texts("en"), locales.read_texts("zh")[at]
    locales.write_texts("en", {**english, at: "Another text."})
    assert locales.main([]) == 1
    told = capsys.readouterr().out
    assert "P2PEdit / inputs / clip / tooltip" in told and english[at] in told and was in told
    assert set(locales.read_texts("zh")) == set(english) - {at}


def test_a_changed_page_has_no_translation(tmp_path: Path) -> None:
    english, chinese = tmp_path / "A.md", tmp_path / "zh.md"
    english.write_text("# One\n", encoding="utf-8")
    assert locales.page_fault(english, chinese) == "is missing in Chinese"
    chinese.write_text("# 一\n", encoding="utf-8")
    assert locales.page_fault(english, chinese) == "translates another English page"
    locales.mark_translated(english, chinese)
    locales.mark_translated(english, chinese)
    assert locales.page_fault(english, chinese) is None
    assert chinese.read_text(encoding="utf-8").count("translates") == 1
    english.write_text("# Two\n", encoding="utf-8")
    assert locales.page_fault(english, chinese) == "translates another English page"


def literals(tree: ast.AST) -> Iterator[str]:
    """All texts of a program, with {} for what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield FILLED.sub("{}", node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield "".join(map(str, parts))


def test_translated_sentences_are_those_of_the_pack() -> None:
    """What a node says and the page translates is found by its English text."""
    programs = [*(REPOSITORY / "nodes").rglob("*.py"), *(REPOSITORY / "p2p_core").rglob("*.py")]
    said = {text for path in programs for text in literals(ast.parse(path.read_text("utf-8")))}
    known = json.loads((REPOSITORY / "web" / "sentences.json").read_text("utf-8"))["zh"]
    assert len(known) > 40
    for english, chinese in known.items():
        assert FILLED.sub("{}", english) in said, english
        assert set(FILLED.findall(english)) == set(FILLED.findall(chinese)), english
        assert CHINESE.search(chinese)
