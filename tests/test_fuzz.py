"""Random graphs of edits (benchmarks/fuzz.py): a hundred of them, always the same."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("host")


def test_a_hundred_random_graphs(host: None) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from random_graphs.cases import Case, cases
    from random_graphs.outcome import DEFECT, RESULT, outcome

    kinds = []

    @settings(
        max_examples=100, derandomize=True, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases(("sd1", "sd1", "sd2, v"), largest=10))
    def graphs(case: Case) -> None:
        found = outcome(case)
        assert found.kind != DEFECT, f"{found.text}\n{case}"
        kinds.append(found.kind)

    graphs()
    assert kinds.count(RESULT) >= 50
