"""The prompts that nodes come with: they run at once on the demo model."""

SOURCE = "a red circle on a green background"
SWAPPED = "a blue circle on a green background"
REFINED = "a striped red circle on a green background"
WEIGHTED = "a (red:1.5) circle on a green background"
COLOUR, THING = "red", "circle"
