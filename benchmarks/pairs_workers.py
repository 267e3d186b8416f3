"""One data set by one, two and four workers, and by workers that things happen to.

python dev.py python -- benchmarks/pairs_workers.py [--captions 12] [--folder DIR]

With the embedded model, three steps, the plain filter. Every data set is compared with that of one
worker: same keys, same pixels. In turn: two workers; four; two of which one is killed in the
middle; one caption that cannot be made; a disk that gets full, then the same command again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parents[1]
THINGS = (
    "cat",
    "dog",
    "pig",
    "fox",
    "lion",
    "frog",
    "owl",
    "bear",
    "panda",
    "rabbit",
    "cake",
    "car",
)
SMALL = ["--samples", "2", "--steps", "3", "--width", "128", "--height", "128", "--block", "4"]
RUNS = ("2", "4", "killed", "poisoned", "full")
WORKER = "MapWorker(MapBatches(Worker))"


def write_captions(path: Path, count: int, poison: bool) -> Path:
    """A file of captions; with poison the fourth is a pair of brackets, which has no words."""
    lines = [
        {"source": f"a {THINGS[i % 12]} {place}", "instruction": "make it snowy",
         "edited": f"a {THINGS[i % 12]} in the snow"}
        for i in range(count)
        for place in [("on the grass", "on the beach", "in the city")[i // 12 % 3]]
    ]  # fmt: skip
    if poison:
        lines[3] |= {"source": "()"}
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def command(captions: Path, out: Path, *more: str) -> list[str]:
    made = ["make", "--captions", str(captions), "--out", str(out), "--scorer", "plain"]
    return [sys.executable, "-m", "p2p_pairs", *made, *SMALL, *more]


def run(words: list[str], largest: int | None = None) -> tuple[int, float]:
    """Exit status and seconds. largest: bytes of a file, which is how a disk gets full here."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    start = time.monotonic()
    status = subprocess.call(words, cwd=REPOSITORY, stderr=subprocess.DEVNULL, preexec_fn=limit)
    return status, time.monotonic() - start


def run_and_kill(words: list[str], out: Path) -> tuple[int, float]:
    """The same, while one worker is killed once the first captions are there."""
    start = time.monotonic()
    with subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        killed = False
        while process.poll() is None:
            if not killed and any(out.glob("parts/*.parquet")):
                killed = kill_a_worker(process.pid)
            time.sleep(0.2)
    if not killed:
        raise RuntimeError("No worker was there to be killed.")
    return process.returncode, time.monotonic() - start


def kill_a_worker(driver: int) -> bool:
    for process in psutil.Process(driver).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith(f"ray::{WORKER}"):
            os.kill(process.pid, signal.SIGKILL)
            return True
    return False


def pairs(out: Path) -> dict[str, tuple[bytes, bytes]]:
    """Pictures by key; a key that comes twice is an error."""
    rows = [
        row for path in sorted(out.glob("parquet/*")) for row in pq.read_table(path).to_pylist()
    ]
    found = {
        row["key"]: (row["original_image"]["bytes"], row["edited_image"]["bytes"]) for row in rows
    }
    if len(found) != len(rows):
        raise RuntimeError(f"{out}: {len(rows) - len(found)} pairs are there twice.")
    return found


def tell(name: str, result: tuple[int, float], out: Path, expected: dict) -> None:
    made, failures = pairs(out), out / "failures.jsonl"
    failed = len(failures.read_text(encoding="utf-8").splitlines()) if failures.exists() else 0
    same = sum(expected.get(key) == pictures for key, pictures in made.items())
    sys.stdout.write(
        f"| {name} | {result[0]} | {result[1]:.0f} | {len(made)} | {same} | {failed} |\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--captions", type=int, default=12)
    parser.add_argument("--folder", type=Path, help="where to write; else a temporary one")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="p2p-pairs-"))
    folder.mkdir(parents=True, exist_ok=True)
    good = write_captions(folder / "good.jsonl", args.captions, poison=False)
    bad = write_captions(folder / "bad.jsonl", args.captions, poison=True)
    sys.stdout.write("| run | exit | s | pairs | the same | failed |\n|---|---|---|---|---|---|\n")
    one, two = folder / "one", ["--workers", "2"]
    result = run(command(good, one))
    expected = pairs(one)
    tell("one worker", result, one, expected)
    for name in args.runs:
        out = folder / name
        if name in ("2", "4"):
            tell(f"{name} workers", run(command(good, out, "--workers", name)), out, expected)
        elif name == "killed":
            result = run_and_kill(command(good, out, *two), out)
            tell("2 workers, one killed", result, out, expected)
        elif name == "poisoned":
            result = run(command(bad, out, *two))
            tell("2 workers, a caption that fails", result, out, expected)
        else:
            tell("a full disk", run(command(good, out), largest=70_000), out, expected)
            tell("the same again, with room", run(command(good, out)), out, expected)


if __name__ == "__main__":
    main()
