"""Draws random graphs, always the same or by a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st


def each(
    drawn: st.SearchStrategy, count: int, look: Callable[[Any], None], seed: int | None = None
) -> None:
    """Looks at so many cases. seed: other cases than the same ones every time.

    Hypothesis varies what it has drawn; graphs of transformers that are sampled alike are passed
    over.
    """
    seen: dict[Any, Any] = {}

    @settings(
        max_examples=count, derandomize=seed is None, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(drawn)
    def cases(case: Any) -> None:
        way = getattr(case, "way", None)
        assume(way is None or seen.setdefault(way, case) == case)  # one that fails comes again
        look(case)

    (cases if seed is None else seeded(seed)(cases))()
