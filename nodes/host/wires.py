"""What is known of a node's wires before anything runs."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io
from comfy_execution.validation import validate_node_input


def wired(node: type[io.ComfyNode], types: Mapping[str, str] | None) -> set[str]:
    """The inputs that have a wire.

    types: what the host gives to a validation that asks for ``input_types``: the type that comes
    through every wire. It leaves their check to that node, so ValueError for a wrong one.
    """
    inputs = node.INPUT_TYPES()
    expected = {name: spec[0] for part in ("required", "optional") for name, spec in
                inputs.get(part, {}).items()}  # fmt: skip
    for name, type_ in (types or {}).items():
        wanted = expected.get(name, type_)
        if isinstance(wanted, str) and not validate_node_input(type_, wanted):
            raise ValueError(f"{name} takes {wanted}, but the wire to it brings {type_}.")
    return set(types or ())


def lacking(node: type[io.ComfyNode], name: str, use: str) -> ValueError:
    """The error that an input has no wire, which the user may believe it to have."""
    title = node.define_schema().display_name
    return ValueError(
        f"{title} has no {name}: nothing is wired to it, or the node before it is bypassed or "
        f"muted. {use}"
    )
