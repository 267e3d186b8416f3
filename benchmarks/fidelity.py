"""Does the edit arrive, and does the rest stay? Held-out edits on the demo model, judged.

    python dev.py python -- benchmarks/fidelity.py --count 300

Every edit is made three ways from one noise: the target prompt without control, Prompt-to-Prompt,
and Prompt-to-Prompt with a local blend. Columns:

- success: the judge finds the target's shape, colour, texture and background;
- outside PSNR: against the source picture, away from the source's object (the square around it
  where the shape changes, each grown by a few pixels);
- changed: share of those pixels that differ by more than 8 of 255;
- structure: overlap (IoU) of the object's region in source and edit.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from demo_edits import REMOVED, Case, Pack, Score, cases, make_edit, score
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

METHODS = ("no control", "P2P", "P2P + blend")


class Studio:
    """The demo model and the nodes that edit with it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.pack = Pack()
        self.model, self.clip, self.vae = self.pack.demo_model()

    def sample(self, model, positive, latent: dict, seed: int) -> np.ndarray:
        """Pictures (rows, H, W, 3) uint8."""
        o = self.options
        negative = self.pack.text(self.clip, "")
        samples = self.pack.sample(model, positive, negative, latent, seed, o.steps, o.cfg)
        pictures = self.pack.decode(self.vae, samples).clamp(0, 1) * 255
        return pictures.round().byte().cpu().numpy()

    def pictures(self, case: Case, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The source and the edit made by every method."""
        edit = make_edit(self.pack, self.clip, case)
        source_words, target_words = case.words
        [blended] = self.pack.node(
            "P2PLocalBlendMask",
            edit=edit,
            source_words=source_words,
            target_words=target_words,
            threshold=self.options.threshold,
        )
        latent = {"samples": torch.zeros(1, 4, 16, 16)}
        model, positive, rows, _ = self.pack.node(
            "P2PAttentionController", model=self.model, latent=latent, edit=edit, edit_2=blended
        )
        source, p2p, blend = self.sample(model, positive, rows, seed)
        plain = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(case.target.text))
        [free] = self.sample(self.model, plain, latent, seed)
        return source, dict(zip(METHODS, (free, p2p, blend), strict=True))


def table(scores: dict[tuple[str, str], list[Score]], title: str) -> Table:
    columns = ("edit", "method", "n", "success", "outside PSNR", "changed", "structure")
    result = Table(*columns, box=MARKDOWN, title=title)
    for (kind, method), rows in scores.items():
        mean = [statistics.fmean(column) for column in zip(*rows, strict=True)]
        shown = f"{100 * mean[0]:.1f} %", f"{mean[1]:.1f} dB", f"{100 * mean[2]:.1f} %"
        result.add_row(kind, method, str(len(rows)), *shown, f"{mean[3]:.2f}")
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--threshold", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="also write the first edits as a sheet")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    studio = Studio(options)
    scores: dict[tuple[str, str], list[Score]] = defaultdict(list)
    sheet = []
    for seed, case in enumerate(track(cases(options.count), console=Console(stderr=True))):
        source, edits = studio.pictures(case, seed)
        for method, picture in edits.items():
            result = score(source, picture, case)
            scores[case.kind, method].append(result)
            if case.kind != REMOVED:  # whose outcome no prompt gives
                scores["all others", method].append(result)
        if len(sheet) < 12:
            sheet.append(np.concatenate([source, *edits.values()], axis=1))
    title = f"demo model, {options.count} held-out edits, {options.steps} steps"
    Console(width=110).print(table(scores, title))
    if options.pictures:
        from PIL import Image

        Image.fromarray(np.concatenate(sheet)).save(options.pictures)


if __name__ == "__main__":
    main()
