"""A CLIP that reads pictures with every prompt."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy.sd import CLIP

from .picture_encoders import PictureEncoder, Pictures

SAMPLE = "a"


class PicturedClip(CLIP):
    """Reads every prompt as one of the host's nodes does with pictures; so do its clones.

    extras: what goes with every encoding, such as reference latents.
    """

    def __init__(
        self, clip: CLIP, encoder: PictureEncoder, pictures: Pictures, extras: dict[str, Any]
    ) -> None:
        super().__init__(no_init=True)
        vars(self).update(vars(clip))
        self.encoder, self.pictures, self.extras = encoder, pictures, extras

    def clone(self, *args: Any, **options: Any) -> PicturedClip:
        made = super().clone(*args, **options)
        return PicturedClip(made, self.encoder, self.pictures, self.extras)

    def tokenize(self, text: str, return_word_ids: bool = False, **options: Any) -> Any:
        alone = partial(self.tokenize_alone, return_word_ids=return_word_ids, **options)
        tokens, _ = self.encoder.read(alone, text, self.pictures)
        return tokens

    def tokenize_alone(self, text: str, **options: Any) -> Any:
        """The tokens of a text without the pictures."""
        return super().tokenize(text, **options)

    def encode_from_tokens_scheduled(self, *args: Any, **options: Any) -> list[list]:
        made = super().encode_from_tokens_scheduled(*args, **options)
        return [[cross, {**values, **self.extras}] for cross, values in made]


def with_pictures(clip: Any, encoder: PictureEncoder, pictures: Pictures, vae: Any) -> CLIP:
    """A clone of the CLIP that reads every prompt with the pictures.

    pictures: one for each input of the encoder, in their order. vae: None for no reference latents.
    ValueError for pictures that the encoder or the CLIP cannot take.
    """
    if isinstance(clip, PicturedClip):
        raise ValueError(
            "The clip reads pictures already, from another node like this one. Wire all pictures "
            "to one of them."
        )
    _check_inputs(encoder, pictures, vae)
    _, extras = encoder.read(clip.tokenize, SAMPLE, pictures, vae)
    made = PicturedClip(clip.clone(), encoder, pictures, extras)
    _check_sees(made)
    return made


def _check_inputs(encoder: PictureEncoder, pictures: Pictures, vae: Any) -> None:
    count = len(encoder.images)
    for number, picture in enumerate(pictures, start=1):
        if picture is not None and number > count:
            raise ValueError(
                f"{encoder.name} takes {count} picture{'s' * (count > 1)}, but image{number} is "
                f"wired. Wire no image behind number {count}, or choose another text_encoder."
            )
        if picture is None and number <= count and encoder.images[number - 1] in encoder.needed:
            raise ValueError(f"{encoder.name} needs image{number}. Wire a picture to it.")
    if vae is not None and encoder.vae is None:
        raise ValueError(
            f"{encoder.name} takes no VAE. Leave vae out, and put ReferenceLatent behind positive "
            "if the model needs the picture's latent."
        )


def _check_sees(clip: PicturedClip) -> None:
    """ValueError for a text encoder that leaves the pictures out."""
    given = sum(picture is not None for picture in clip.pictures)
    chunks = [chunk for made in clip.tokenize(SAMPLE).values() for chunk in made]
    seen = sum(isinstance(token, dict) for chunk in chunks for token, *_ in chunk)
    network = clip.cond_stage_model
    if seen < given or not any(hasattr(part, "preprocess_embed") for part in network.modules()):
        raise ValueError(
            f"This text encoder ({type(network).__name__}) does not see the pictures that "
            f"{clip.encoder.name} gives it. Load the text encoder of the picture model with "
            "CLIPLoader (Qwen-Image-Edit: Qwen2.5-VL 7B, type qwen_image)."
        )
