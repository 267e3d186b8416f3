"""The data card: what is in a data set, what it was made with, and how its numbers lie."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from p2p_pairs.files import write_bytes
from p2p_pairs.folder import Folder
from p2p_pairs.rows import PICTURES, SHARES
from p2p_pairs.settings import Settings
from p2p_pairs.shards import SUFFIXES

HISTOGRAM = "histograms.png"
BINS = 20


def write_card(folder: Folder, settings: Settings, repeated: int) -> None:
    """README.md with a YAML header, histograms.png, and failures.jsonl where something failed."""
    failures = [
        {"key": one.key, "error": one.error, **folder.captions[one.key].as_dict()}
        for one in folder.failures()
    ]
    path = folder.path / "failures.jsonl"
    if failures:
        lines = [json.dumps(one, ensure_ascii=False) for one in failures]
        write_bytes(path, ("\n".join(lines) + "\n").encode())
    else:
        path.unlink(missing_ok=True)
    columns = _numbers(folder)
    if columns:
        write_bytes(folder.path / HISTOGRAM, _histograms(columns))
    text = _header(folder) + _body(folder, settings, repeated, bool(columns))
    write_bytes(folder.path / "README.md", text.encode())


def _numbers(folder: Folder) -> dict[str, list[float]]:
    """Shares and scores of all kept pairs, by column; without Parquet files from the tars."""
    columns: dict[str, list[float]] = {}
    for row in kept_rows(folder.path):
        for name, value in row.items():
            if name in SHARES or name.startswith("score_"):
                columns.setdefault(name, []).append(value)
    return columns


def kept_rows(path: Path) -> list[dict]:
    """All that a data set says of its pairs, but for the pictures."""
    rows: list[dict] = []
    for file in sorted((path / "parquet").glob("*.parquet")):
        names = [name for name in pq.read_schema(file).names if name not in PICTURES]
        rows += pq.read_table(file, columns=names).to_pylist()
    if not rows:
        import tarfile

        for file in sorted((path / "webdataset").glob("*.tar")):
            with tarfile.open(file) as tar:
                for member in tar.getmembers():
                    if member.name.endswith(".json") and (content := tar.extractfile(member)):
                        rows.append(json.loads(content.read()))
    return rows


def _histograms(columns: dict[str, list[float]]) -> bytes:
    """One small panel for every column, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(columns), 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for panel, (name, values) in zip(panels, columns.items(), strict=True):
        panel.hist(values, bins=BINS, color="#4477aa")
        panel.set_title(name.replace("_", " "))
        panel.set_ylabel("pairs")
    file = io.BytesIO()
    figure.savefig(file, dpi=100, metadata={"Software": None})
    return file.getvalue()


def _header(folder: Folder) -> str:
    """YAML for the Hugging Face hub and `load_dataset`; the first format is the default."""
    first, count = folder.formats[0], sum(one.kept for one in folder.all_outcomes())
    size = next(
        (name for limit, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"),
                                  (1e6, "100K<n<1M")) if count < limit),
        "1M<n<10M",
    )  # fmt: skip
    lines = [
        "task_categories:", "- image-to-image", "language:", "- en", "tags:",
        "- instruct-pix2pix", "- prompt-to-prompt", "- synthetic", "size_categories:", f"- {size}",
        "configs:", "- config_name: default", "  data_files:", "  - split: train",
        f"    path: {first}/*.{SUFFIXES[first]}",
    ]  # fmt: skip
    return "\n".join(["---", *lines, "---", ""])


def _body(folder: Folder, settings: Settings, repeated: int, pictured: bool) -> str:
    outcomes = folder.all_outcomes()
    made = [one for one in outcomes if one.error is None]
    kept, tried = sum(one.kept for one in made), sum(one.tried for one in made)
    reasons: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for one in made:
        reasons.update(one.reasons)
        kinds[folder.captions[one.key].kind] += one.kept
    counts = [
        ("captions", len(folder.captions)),
        ("of them not made yet", len(folder.missing())),
        ("of them failed (failures.jsonl)", len(outcomes) - len(made)),
        ("of them without a pair that passed", sum(one.kept == 0 for one in made)),
        ("repeated lines of the file, left out", repeated),
        ("pairs sampled", tried),
        ("pairs kept", kept),
    ]
    parts = ["# Pairs for instructions", INTRODUCTION, "## Counts", _table(counts)]
    if reasons:
        parts += ["Pairs that were not kept:", _table(sorted(reasons.items()))]
    if set(kinds) != {""}:
        parts += ["Pairs kept by kind of edit:", _table(sorted(kinds.items()))]
    if pictured:
        parts.append(f"![How shares and scores of the kept pairs lie]({HISTOGRAM})")
    parts += ["## Settings", f"```json\n{settings.to_json().strip()}\n```", COLUMNS]
    return "\n\n".join(["", *parts, ""])


def _table(rows: Sequence[tuple[str, int]]) -> str:
    lines = [f"| {name or 'other'} | {count} |" for name, count in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


INTRODUCTION = """\
Pictures before and after an edit, and the instruction that leads from one to the other. Both were
sampled by a text-to-image model under Prompt-to-Prompt (arXiv:2208.01626) with random shares of
injected attention, and filtered, as for InstructPix2Pix (arXiv:2211.09800, section 3.1). The
pictures are synthetic; what a model was trained on, they may repeat."""

COLUMNS = """\
## Columns

`original_image`, `edited_image` (PNG), `original_prompt`, `edit_prompt` (the instruction),
`edited_prompt`, `kind`; `sample` and `seed`, the shares of the steps with injected cross- and
self-attention, `cfg`; the scorer's numbers as `score_…`. `key` is the caption's digest and the
sample's number: the same captions and settings give the same keys and pictures."""
