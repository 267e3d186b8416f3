"""Train the judge on rendered scenes, as painted and after the autoencoder; print its accuracy.

Scenes are of the training world and of the combinations that the model never sees, alike. Half
of the pictures go through the autoencoder with some noise on their latents.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from book.judge import HEADS, MASK_SIDE, WEIGHTS_PATH, Judge, Verdict, judge_pictures, load_judge
from book.things import COLOURS, DYED, KINDS
from book.vae import build_autoencoder
from book.world import CLOTHES, SETTINGS, Scene, render_with_mask, sample_scene


def targets(scenes: list[Scene]) -> dict[str, Tensor]:
    """Shares (B, n) that every head should give, and 'dyed' (B,): has one recoloured thing."""
    out = {name: torch.zeros(len(scenes), count) for name, count in HEADS.items()}
    dyed = torch.zeros(len(scenes))
    for row, scene in enumerate(scenes):
        out["setting"][row, list(SETTINGS).index(scene.setting)] = 1
        out["look"][row] = torch.tensor([float(scene.autumn), float(scene.pencil)])
        colours = [thing.colour for thing in scene.things if thing.colour]
        dyed[row] = len(colours) == 1 and not scene.pencil
        for colour in colours:
            out["colour"][row, list(COLOURS).index(colour)] = 1 / len(colours)
        for thing in scene.things:
            out["thing"][row, list(KINDS).index(thing.kind)] = 1 / len(scene.things)
            if thing.clothes:
                out["clothes"][row, list(CLOTHES).index(thing.clothes)] = 1
    return {**out, "dyed": dyed}


def loss(logits: dict[str, Tensor], goal: dict[str, Tensor], masks: Tensor) -> Tensor:
    """Cross entropy of every head and of the mask (B, 64, 64)."""
    total = F.binary_cross_entropy_with_logits(logits["mask"], masks)
    for name in ("thing", "setting"):
        total = total + F.cross_entropy(logits[name], goal[name])
    colour = F.cross_entropy(logits["colour"], goal["colour"], reduction="none")
    total = total + (colour * goal["dyed"]).sum() / goal["dyed"].sum().clamp_min(1)
    for name in ("clothes", "look"):
        total = total + F.binary_cross_entropy_with_logits(logits[name], goal[name])
    return total


class Examples:
    """Painted scenes with masks; every second one after the autoencoder."""

    def __init__(self, vae: Path, seed: str) -> None:
        self.rng = Random(seed)
        self.autoencoder = build_autoencoder()
        self.autoencoder.load_state_dict(torch.load(vae, map_location="cpu")["model"])
        self.autoencoder.to(torch.bfloat16).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def through(self, pictures: Tensor, noise: float) -> Tensor:
        """Pictures (B, 3, H, W) after the autoencoder, with noise on the latents."""
        x = pictures.bfloat16().contiguous(memory_format=torch.channels_last)
        latents = self.autoencoder["encoder"](x)
        latents = latents + noise * torch.randn_like(latents)
        return self.autoencoder["decoder"](latents).float().clamp(0, 1)

    def make(self, count: int) -> tuple[list[Scene], Tensor, Tensor]:
        """Scenes, pictures (B, 3, 128, 128) in [0, 1] as painted, masks (B, 64, 64)."""
        scenes = [sample_scene(self.rng, held_out=True) for _ in range(count)]
        painted = [render_with_mask(scene) for scene in scenes]
        pictures = torch.from_numpy(np.stack([picture for picture, _ in painted]))
        masks = torch.from_numpy(np.stack([mask for _, mask in painted])).float() / 255
        masks = F.avg_pool2d(masks[:, None], masks.shape[-1] // MASK_SIDE)[:, 0]
        return scenes, pictures.permute(0, 3, 1, 2).float() / 255, masks


def train(args: argparse.Namespace) -> nn.Module:
    """Train for the minutes that were asked for."""
    examples = Examples(args.vae, f"judge {args.seed}")
    network = load_judge(args.resume).train() if args.resume else Judge()
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=1e-3)
    store: list[tuple[dict[str, Tensor], Tensor, Tensor]] = []
    start, step = time.monotonic(), 0
    while (share := (time.monotonic() - start) / (60 * args.minutes)) < 1:
        if share < 0.8 or not store:  # towards the end the same again
            scenes, pictures, masks = examples.make(args.batch)
            half = len(pictures) // 2
            pictures[:half] = examples.through(pictures[:half], float(torch.rand(())) * 0.3)
            store.append((targets(scenes), pictures.half(), masks))
        for goal, pictures, masks in (store[-1], store[torch.randint(len(store), (1,))]):
            for group in optimiser.param_groups:
                group["lr"] = args.lr * max(0.02, 1 - share)
            shift = 0.03 * torch.randn(len(pictures), 3, 1, 1)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(
                    (pictures.float() + shift).contiguous(memory_format=torch.channels_last)
                )
            value = loss({k: v.float() for k, v in logits.items()}, goal, masks)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            step += 1
        if step % 100 == 0:
            logging.info("step %d, %d examples, loss %.4f", step, len(store) * args.batch, value)
    return network.eval()


def right(scene: Scene, verdict: Verdict) -> dict[str, bool]:
    """Which of a verdict's parts are true of the scene."""
    kinds = {thing.kind for thing in scene.things}
    checks = {
        "setting": verdict.setting == scene.setting,
        "hat": verdict.hat == any(thing.clothes == "hat" for thing in scene.things),
        "scarf": verdict.scarf == any(thing.clothes == "scarf" for thing in scene.things),
        "autumn": verdict.autumn == scene.autumn,
        "pencil": verdict.pencil == scene.pencil,
    }
    if len(kinds) == 2:
        return {**checks, "both things": verdict.pair == kinds}
    checks["thing"] = verdict.thing in kinds
    if scene.things[0].kind in DYED and not scene.pencil:
        checks["colour"] = verdict.colour == scene.things[0].colour
    return checks


def accuracy(network: Judge, vae: Path, count: int) -> dict[str, dict[str, float]]:
    """Share of right answers on fresh scenes, as painted and after the autoencoder."""
    examples = Examples(vae, "judge test")
    found: dict[str, dict[str, list[bool]]] = {"painted": {}, "after the autoencoder": {}}
    for _ in range(count // 50):
        scenes, pictures, _ = examples.make(50)
        for name, batch in zip(found, (pictures, examples.through(pictures, 0.0)), strict=True):
            pixels = batch.permute(0, 2, 3, 1).mul(255).round().byte().numpy()
            for scene, verdict in zip(scenes, judge_pictures(pixels, network), strict=True):
                for key, value in right(scene, verdict).items():
                    found[name].setdefault(key, []).append(value)
    return {
        name: {key: float(np.mean(values)) for key, values in checks.items()}
        for name, checks in found.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, default=Path("vae.pt"))
    parser.add_argument("--out", type=Path, default=WEIGHTS_PATH)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--resume", type=Path, help="go on from these weights")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--test-only", action="store_true", help="measure the weights of --out")
    parser.add_argument("--count", type=int, default=1000, help="scenes for the accuracy")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    network = load_judge(args.out) if args.test_only else train(args)
    state = {k: v.half() for k, v in network.state_dict().items() if v.is_floating_point()}
    save_file({k: v.contiguous() for k, v in state.items()}, args.out)
    for name, checks in accuracy(network, args.vae, args.count).items():
        for key, value in checks.items():
            logging.info("%-22s %-12s %6.2f %%", name, key, 100 * value)


if __name__ == "__main__":
    main()
