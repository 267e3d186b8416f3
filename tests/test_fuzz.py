"""Random graphs of edits (benchmarks/fuzz.py): some of them, always the same."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("host")
FEW = ("Qwen-Image", "Z-Image", "Krea 2", "Flux.1 dev", "SD3", "Anima")


def test_a_hundred_random_graphs(host: None) -> None:
    from random_graphs.cases import Case, cases
    from random_graphs.drawing import each
    from random_graphs.outcome import DEFECT, RESULT, outcome

    kinds = []

    def look(case: Case) -> None:
        found = outcome(case)
        assert found.kind != DEFECT, f"{found.text}\n{case}"
        kinds.append(found.kind)

    each(cases(("sd1", "sd1", "sd2, v"), largest=10), 100, look)
    assert kinds.count(RESULT) >= 50


def test_forty_random_graphs_of_transformers(host: None) -> None:
    from random_graphs.drawing import each
    from random_graphs.outcome import DEFECT, RESULT
    from random_graphs.transformer_cases import transformer_cases
    from random_graphs.transformer_outcome import outcome

    kinds = []

    def look(case: Any) -> None:
        found = outcome(case)
        assert found.kind != DEFECT, f"{found.text}\n{case}"
        kinds.append(found.kind)

    each(transformer_cases(FEW, largest=4), 40, look)
    assert kinds.count(RESULT) >= 20
