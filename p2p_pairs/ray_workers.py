"""The same work on Ray Data: one actor per slot holds a host and a model, captions stream through.

Ray gives captions to whoever is free, starts a dead actor again and repeats what it was doing;
results stream to the one process that writes, which takes them only as fast as it can.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

from p2p_pairs.captions import Caption
from p2p_pairs.rows import Outcome, part_bytes
from p2p_pairs.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
MAKER = "p2p_pairs.maker:Maker"
DEATHS = 2  # of a worker, after which what it was doing is put aside
BLOCKS = 20_000  # that a run is cut into, at most; a worker that dies begins its block again


class Worker:
    """Holds a maker for all captions that it is given; what: its class, as module:name."""

    def __init__(self, settings: Settings, what: str) -> None:
        from p2p_pairs.paths import prepare_path

        prepare_path()
        module, name = what.split(":")
        self.maker = getattr(importlib.import_module(module), name)(settings)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """A column of parts for columns of captions' fields."""
        rows = [dict(zip(batch, map(str, row), strict=True)) for row in zip(*batch.values())]  # noqa: B905
        captions = [Caption(**row) for row in rows]
        return {
            "key": [caption.key for caption in captions],
            "part": [self.maker.make(caption) for caption in captions],
        }


def made_by_workers(
    settings: Settings,
    captions: Sequence[Caption],
    workers: int,
    address: str | None = None,
    gpus: float = 0.0,
    what: str = MAKER,
) -> Iterator[tuple[str, bytes]]:
    """(key, part) in the order in which they are done. gpus: of each worker, also a part of one.

    What killed its worker time and again is tried once more by itself, then told as failed.
    """
    _connect(workers, address, gpus)
    try:
        left = {caption.key: caption for caption in captions}
        for blocks in (BLOCKS, len(left)):
            for key, part in _one_pass(
                (settings, what), list(left.values()), workers, gpus, blocks
            ):
                left.pop(key, None)
                yield key, part
            if not left:
                return
        for key in left:
            yield key, part_bytes([], Outcome(key, error="Every worker that made it died."), ())
    except RayError as error:
        raise ValueError(f"The workers cannot work: {_cause(error)}") from error
    finally:
        ray.shutdown()


def _connect(workers: int, address: str | None, gpus: float) -> None:
    """Join a cluster, or start Ray on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    names = [name for name in ("COMFYUI_PATH", "OMP_NUM_THREADS") if name in os.environ]
    variables = {"PYTHONPATH": os.pathsep.join(paths), **{name: os.environ[name] for name in names}}
    here: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    if gpus:
        here["num_gpus"] = max(1, round(workers * gpus))
    ray.init(
        address=address,
        runtime_env={"env_vars": variables},
        log_to_driver=False,
        logging_level=logging.WARNING,
        **({} if address else here),
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # bytes: a caption's part comes as soon as it is made
    context.max_errored_blocks = -1  # a dead worker's captions are tried again, see above


def _one_pass(
    made_with: tuple, captions: Sequence[Caption], workers: int, gpus: float, blocks: int
) -> Iterator[tuple[str, bytes]]:
    """Whatever of the captions gets done."""
    items: list[Any] = [asdict(caption) for caption in captions]
    # Ray Data writes its progress, and the whole trace of every death, into the log.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    done = ray.data.from_items(items, override_num_blocks=min(blocks, len(items))).map_batches(
        Worker,  # type: ignore[arg-type]
        fn_constructor_args=made_with,
        batch_size=1,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=min(workers, len(items)), max_tasks_in_flight_per_actor=1),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus or None,
        ray_remote_args_fn=_fault_tolerance,
    )
    for row in done.iter_rows():
        yield row["key"], bytes(row["part"])


def _fault_tolerance() -> dict[str, int]:
    """Dead actors come back; what they were doing is repeated, but not for ever."""
    return {"max_restarts": -1, "max_task_retries": DEATHS}


def _cause(error: BaseException) -> str:
    """The last line of Ray's report, which is the worker's own error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
