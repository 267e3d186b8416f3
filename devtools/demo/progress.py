"""A sampler's progress: a bar on a terminal, a few lines in a log."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from devtools.demo.graphs import SAMPLER_ID

LOG_LINES = 4


class Steps:
    """Shows how far a workflow's sampler is."""

    def __init__(self, console: Console, name: str, steps: int) -> None:
        self.console, self.name, self.steps = console, name, steps
        columns = TextColumn("{task.description:<29}"), BarColumn(), MofNCompleteColumn()
        live = console.is_terminal
        self.bar = Progress(*columns, TimeElapsedColumn(), console=console, disable=not live)
        self.task = self.bar.add_task(name, total=steps)

    def __enter__(self) -> Steps:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def update(self, node: str, done: int, total: int) -> None:
        """As the client reports it; nodes other than the sampler are left out."""
        if node != SAMPLER_ID:
            return
        self.bar.update(self.task, completed=done, total=total)
        if not self.console.is_terminal and done % max(total // LOG_LINES, 1) == 0:
            self.console.print(f"{self.name:<29} step {done} of {total}")
