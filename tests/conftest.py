"""Starts the host once per test process, with the pack in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = str(Path(__file__).resolve().parents[1])
# The host's `nodes` module must win over this repository's package of that name.
sys.path[:] = [path for path in sys.path if path not in ("", REPOSITORY)] + [REPOSITORY]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def host() -> None:
    """ComfyUI's nodes and the pack's are registered; for every test that runs a graph."""
    import host_run

    host_run.load_host()
