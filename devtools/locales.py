"""What the nodes say, by language: English as their schemas have it, Chinese kept beside it.

python dev.py python -- -m devtools.locales [--translated PAGE …]

Writes locales/en/nodeDefs.json from the registered schemas. A Chinese text whose English has
changed leaves locales/zh/nodeDefs.json and is printed with the new English: run this first, then
write the Chinese. Pages (the help, README) say in their last line which English page they
translate; --translated PAGE, such as P2PEdit or README, renews that line once they do again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LOCALES = REPOSITORY / "locales"
DOCS = REPOSITORY / "web" / "docs"
MARK = re.compile(r"\n<!-- translates (\w+) -->\n$")
Texts = dict[tuple[str, ...], str]  # path in nodeDefs.json -> text


def node_texts(nodes: Iterable[Any]) -> dict[str, Any]:
    """The content of ComfyUI's nodeDefs.json for these nodes, by node id."""
    texts = {}
    for schema in sorted((node.define_schema() for node in nodes), key=lambda s: s.node_id):
        texts[schema.node_id] = {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {slot.id: _slot_texts(slot, slot.id) for slot in schema.inputs},
            "outputs": {
                str(number): _slot_texts(slot, slot.id)
                for number, slot in enumerate(schema.outputs)
            },
        }
    return texts


def _slot_texts(slot: Any, name: str) -> dict[str, str]:
    tooltip = {"tooltip": slot.tooltip} if slot.tooltip else {}
    return {"name": slot.display_name or name, **tooltip}


def flat(tree: dict[str, Any]) -> Texts:
    """All texts of a nested table by their paths."""
    return dict(_walk(tree, ()))


def _walk(tree: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _walk(value, (*path, key))
        else:
            yield (*path, key), value


def nested(texts: Texts) -> dict[str, Any]:
    """The inverse of flat."""
    tree: dict[str, Any] = {}
    for (*folders, key), text in texts.items():
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[key] = text
    return tree


def kept(chinese: Texts, before: Texts, now: Texts) -> Texts:
    """The Chinese texts whose English is what it was (or new), in the order of the English ones."""
    return {at: chinese[at] for at in now if at in chinese and before.get(at, now[at]) == now[at]}


def read_texts(language: str) -> Texts:
    path = LOCALES / language / "nodeDefs.json"
    return flat(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write_texts(language: str, texts: Texts) -> None:
    path = LOCALES / language / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(nested(texts), indent=2, ensure_ascii=False)
    path.write_text(content + "\n", encoding="utf-8")


def pages() -> dict[str, tuple[Path, Path]]:
    """name -> (English page, Chinese page), there or not, of the help and README."""
    names = {page.stem for page in DOCS.glob("*.md")} | {
        page.parent.name for page in DOCS.glob("*/zh.md")
    }
    found = {name: (DOCS / f"{name}.md", DOCS / name / "zh.md") for name in sorted(names)}
    return {"README": (REPOSITORY / "README.md", REPOSITORY / "README.zh.md"), **found}


def page_fault(english: Path, chinese: Path) -> str | None:
    """What is wrong with a translated page, if anything."""
    if not english.exists() or not chinese.exists():
        return "is missing in " + ("English" if chinese.exists() else "Chinese")
    mark = MARK.search(chinese.read_text(encoding="utf-8"))
    return None if mark and mark[1] == _digest(english) else "translates another English page"


def mark_translated(english: Path, chinese: Path) -> None:
    text = MARK.sub("", chinese.read_text(encoding="utf-8")).rstrip("\n")
    chinese.write_text(f"{text}\n\n<!-- translates {_digest(english)} -->\n", encoding="utf-8")


def _digest(page: Path) -> str:
    """Short, and the same whatever line ends a clone has."""
    return hashlib.sha256(page.read_text(encoding="utf-8").encode()).hexdigest()[:12]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--translated", nargs="+", default=[], metavar="PAGE", choices=pages())
    for name in parser.parse_args(arguments).translated:
        mark_translated(*pages()[name])
    before, chinese = read_texts("en"), read_texts("zh")
    now = flat(node_texts(_pack_nodes()))
    current = kept(chinese, before or now, now)
    write_texts("en", now)
    write_texts("zh", current)
    lacking = [at for at in now if at not in current]
    for at in lacking:
        was = f"\n    was: {chinese[at]}" if at in chinese else ""
        sys.stdout.write(f"{' / '.join(at)}\n    English: {now[at]}{was}\n")
    faults = {name: fault for name, both in pages().items() if (fault := page_fault(*both))}
    for name, fault in faults.items():
        sys.stdout.write(f"The page {name} {fault}.\n")
    return 1 if lacking or faults else 0


def _pack_nodes() -> list[Any]:
    from headless import Pack

    known = Pack().host.NODE_CLASS_MAPPINGS
    return [node for name, node in known.items() if re.match("I?P2P", name)]


if __name__ == "__main__":
    sys.exit(main())
