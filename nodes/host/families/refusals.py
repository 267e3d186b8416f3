"""What is said of a model whose attention a probe could not make out."""

from __future__ import annotations


def unreachable(family: str, calls: int) -> ValueError:
    """No attention call shows text to the image where the host lets others look."""
    seen = (
        f"of its {calls} visible attention calls none shows the prompt to the image"
        if calls
        else "none of its attention calls passes through ComfyUI's attention hook"
    )
    return ValueError(
        f"Words cannot be followed in this model ({family}): {seen}. Its network computes "
        "attention in a way of its own (a foreign loader, or a family that ComfyUI wired "
        "differently), so nothing was edited. Use ComfyUI's own loader, or another model."
    )


def uncertain(family: str, call: int, seen: str) -> ValueError:
    """A position belongs to neither text nor image for certain."""
    return ValueError(
        f"Where the words stand in this model ({family}) is not certain: in attention call {call} "
        f"{seen}. Nothing was edited. If the model is quantised, load it in bf16 or fp8; else use "
        "another model."
    )


def not_finite(family: str, what: str) -> ValueError:
    """A trial gave NaN or infinity."""
    return ValueError(
        f"A trial of this model ({family}) gave numbers that are not finite ({what}), so where its "
        "words stand cannot be told. Load it in another precision (fp32 or bf16)."
    )


def unconfirmed(family: str, difference: float, floor: float) -> ValueError:
    """The self-check failed: the image still sees the edited text somewhere."""
    return ValueError(
        f"Where the words stand in this model ({family}) was not confirmed: reading another "
        f"prompt's words at the places found still leaves a difference of {difference:.1e} in the "
        f"picture (rounding alone: {floor:.1e}). Some of its attention is not visible to "
        "ComfyUI's hook. Nothing was edited; use another model."
    )
