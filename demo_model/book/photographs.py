"""Pictures that the model did not make: painted scenes of a prompt, damaged as photographs are."""

from __future__ import annotations

import io
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from book.things import KINDS
from book.world import Prompt, Scene, Thing, render

DAMAGES = ("none", "noise", "blur", "JPEG")


def photograph(prompt: Prompt, rng: Random) -> np.ndarray:
    """A painted scene of a one-thing prompt, (H, W, 3) uint8; what it does not name is drawn."""
    noun, horizon, side = prompt.nouns[0], rng.uniform(68, 90), rng.randint(52, 76)
    x, foot = 64 + rng.uniform(-20, 20), rng.uniform(102, 118)
    if KINDS[noun.thing].floats:
        foot = rng.uniform(side + 6, 108)
    thing = Thing(
        noun.thing, noun.colour, noun.size, noun.clothes, x, foot, side, rng.random() < 0.5
    )
    extras = rng.randrange(2**31)
    setting = prompt.setting or "grass"
    return render(Scene((thing,), setting, prompt.autumn, prompt.pencil, None, horizon, extras))


def damaged(picture: np.ndarray, damage: str, seed: int) -> np.ndarray:
    """A picture (H, W, 3) uint8 with noise of 8 of 255, blurred, or through JPEG of quality 35."""
    image = Image.fromarray(picture)
    if damage == "noise":
        noise = np.random.default_rng(seed).normal(0, 8, picture.shape)
        image = Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8))
    if damage == "blur":
        image = image.filter(ImageFilter.GaussianBlur(1.2))
    if damage == "JPEG":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=35)
        image = Image.open(file).convert("RGB")
    return np.asarray(image)
