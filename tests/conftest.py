"""Starts the host once per test process, with the pack in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

REPOSITORY = str(Path(__file__).resolve().parents[1])
# The host's `nodes` module must win over this repository's package of that name.
sys.path[:] = [path for path in sys.path if path not in ("", REPOSITORY)] + [REPOSITORY]

torch.set_num_threads(1)

import newer_host  # noqa: E402

newer_host.install()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nobody should believe that the page was tested where it was not."""
    skipped = terminalreporter.stats.get("skipped", [])
    if any("test_page" in report.nodeid for report in skipped):
        import browser

        why = f"THE PAGE WAS NOT TESTED: {browser.lacking()}"
        terminalreporter.write_line(why, red=True, bold=True)
    if any("test_pairs_workers" in report.nodeid for report in skipped):
        why = "SEVERAL WORKERS WERE NOT TESTED: Ray is not installed."
        terminalreporter.write_line(why, red=True, bold=True)


@pytest.fixture(scope="session")
def host() -> None:
    """ComfyUI's nodes and the pack's are registered; for every test that runs a graph."""
    import host_run

    host_run.load_host()


@pytest.fixture(scope="module")
def models() -> Iterator[None]:
    """Tiny transformers that tests of one module share: gone before the interpreter is."""
    yield
    from families import edits, invented

    edits.model_of.cache_clear()
    edits.plain_source.cache_clear()
    invented.shared.cache_clear()
