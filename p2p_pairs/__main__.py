"""The command line: `python -m p2p_pairs make --captions FILE --out FOLDER`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_pairs.captions import Caption, read_captions
from p2p_pairs.files import DiskFull, locked
from p2p_pairs.paths import prepare_path
from p2p_pairs.settings import FORMATS, Settings, read_settings

if TYPE_CHECKING:
    from p2p_pairs.folder import Folder

LOG = logging.getLogger("p2p_pairs")
HOPELESS = 10  # captions that all fail before a run is given up
OVERRIDES = ("model", "width", "height", "seed", "samples", "together", "steps", "keep", "scorer",
             "clip_vision", "text_encoder", "block", "threads")  # fmt: skip


def make(args: argparse.Namespace) -> int:
    """Make a data set, or go on with it."""
    from p2p_pairs.card import write_card
    from p2p_pairs.folder import Folder

    settings = read_settings(args.settings) if args.settings else Settings()
    settings = settings.but(**{name: getattr(args, name) for name in OVERRIDES})
    captions, repeated = read_captions(args.captions)
    if repeated:
        LOG.info("%d lines repeat another one and are left out.", len(repeated))
    with locked(args.out):
        folder = Folder(args.out, settings, captions[: args.limit], args.formats)
        try:
            work(folder, results(args, settings, folder.missing()))
        except BaseException:
            with suppress(DiskFull):  # which is told already
                write_card(folder, settings, len(repeated))
            raise
        write_card(folder, settings, len(repeated))
    count = len(folder.captions)
    LOG.info("%s: %d pairs of %d captions; %d failed.", args.out, folder.kept, count, folder.failed)
    return 1 if folder.failed else 0


def write(args: argparse.Namespace) -> int:
    """Have a language model write instructions and edited captions for captions."""
    from headless import Pack
    from p2p_pairs.writing import HostWriter, read_sources, write_captions

    sources = list(read_sources(args.sources))
    pack = Pack()
    writer = HostWriter(pack, pack.text_encoder(args.language_model, args.type), args.temperature)
    counts = write_captions(sources, writer, args.out, args.seed)
    for reason, count in counts.most_common():
        LOG.info("%6d %s", count, reason)
    return 0 if counts["written"] else 1


def folders(args: argparse.Namespace) -> int:
    """Write a data set as folders of pictures with texts, for ComfyUI's Load Image-Text nodes."""
    from p2p_pairs.host_sets import stored_rows, write_folders

    count = write_folders(stored_rows(args.data, args.limit), args.out)
    LOG.info("%d pairs in %s", count, args.out)
    return 0


def encode(args: argparse.Namespace) -> int:
    """Encode a data set for ComfyUI's Load Training Dataset and Train LoRA."""
    from headless import Pack
    from p2p_pairs.host_sets import encoded, save_training_set, stored_rows

    pack = Pack()
    _, clip, vae = pack.checkpoint(args.model)
    made = encoded(stored_rows(args.data, args.limit), pack, vae, clip)
    save_training_set(pack, *made, args.name)
    LOG.info("%d pairs in the training dataset %s", len(made[0]), args.name)
    return 0


def work(folder: Folder, made: Iterator[tuple[str, bytes]]) -> None:
    """Put results into the folder as they come, and tell how far it is."""
    start, told, before = time.monotonic(), 0.0, len(folder.outcomes)
    for key, part in made:
        folder.add(key, part)
        done, count, now = len(folder.outcomes), len(folder.captions), time.monotonic()
        if done == folder.failed >= HOPELESS:
            error = folder.outcomes[key].error
            raise ValueError(f"The first {HOPELESS} captions all failed: {error}")
        if now - told > 10 or done == count:
            told, speed = now, 60 * (done - before) / (now - start)
            LOG.info("%d of %d captions, %d pairs kept, %.1f captions a minute",
                     done, count, folder.kept, speed)  # fmt: skip


def results(
    args: argparse.Namespace, settings: Settings, missing: list[Caption]
) -> Iterator[tuple[str, bytes]]:
    """(key, part) of what is missing, made here or by workers."""
    if not missing:
        return iter(())
    if args.workers > 1 or args.address:
        from p2p_pairs.ray_workers import made_by_workers

        return made_by_workers(settings, missing, args.workers, args.address, args.gpus_per_worker)
    from p2p_pairs.maker import made_here

    return made_here(settings, missing)


def parser() -> argparse.ArgumentParser:
    """All commands."""
    top = argparse.ArgumentParser(prog="p2p-pairs", description=(__doc__ or "").split("\n")[0])
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("make", help=(make.__doc__ or ""))
    one.set_defaults(run=make)
    one.add_argument("--captions", type=Path, required=True, help=".jsonl, .csv or .parquet")
    one.add_argument("--out", type=Path, required=True, help="the data set's folder")
    one.add_argument("--settings", type=Path, help="JSON; what it leaves out is the paper's")
    one.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    one.add_argument("--limit", type=int, help="only so many captions, from the first")
    one.add_argument("--workers", type=int, default=1, help="more than one: by Ray")
    one.add_argument("--address", help="of a Ray cluster to join, such as auto")
    one.add_argument("--gpus-per-worker", type=float, default=0.0, help="for Ray; 0: on CPUs")
    for name in OVERRIDES:
        kind = type(getattr(Settings(), name))
        one.add_argument(f"--{name.replace('_', '-')}", type=kind, help="instead of the setting")
    one = commands.add_parser("write", help=write.__doc__)
    one.set_defaults(run=write)
    one.add_argument("--sources", type=Path, required=True, help="a text file, one caption a line")
    one.add_argument("--out", type=Path, required=True, help="a .jsonl file of captions for make")
    text = "a file that Generate Text runs, such as Qwen 3 or Gemma"
    one.add_argument("--language-model", type=Path, required=True, help=text)
    one.add_argument("--type", default="stable_diffusion", help="as CLIPLoader's")
    one.add_argument("--temperature", type=float, default=0.7)
    one.add_argument("--seed", type=int, default=0)
    for two, action in (("folders", folders), ("encode", encode)):
        one = commands.add_parser(two, help=action.__doc__)
        one.set_defaults(run=action)
        one.add_argument("--data", type=Path, required=True, help="the data set's folder")
        one.add_argument("--limit", type=int, help="only so many pairs, from the first")
        if two == "folders":
            one.add_argument("--out", type=Path, required=True)
        else:
            text = "a checkpoint whose VAE and text encoder the trained model has"
            one.add_argument("--model", type=Path, required=True, help=text)
            one.add_argument("--name", required=True, help="in ComfyUI's folder of datasets")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The console entry; errors are one sentence."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", force=True)
    LOG.setLevel(logging.INFO)  # the host sets the root's own
    args = parser().parse_args(arguments)
    prepare_path()
    try:
        return args.run(args)
    except DiskFull as error:
        told = f"{error} What is finished is whole: free some space and run the command again."
    except (ValueError, OSError) as error:
        told = str(error)
    except ModuleNotFoundError as error:
        told = f'{error}. Install what is needed: python -m pip install ".[pairs,pairs-workers]".'
    except KeyboardInterrupt:
        told = "Interrupted; run the command again to go on."
    sys.stderr.write(f"p2p-pairs: {told}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
