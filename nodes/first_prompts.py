"""The prompts that nodes come with: they run at once on the demo model."""

SOURCE = "a cat on the grass"
SWAPPED = "a dog on the grass"
INSTRUCTED = "turn it into a dog"
REFINED = "a cat wearing a hat on the grass"
WEIGHTED = "a cat wearing a (hat:1.5) on the grass"
PLACE, THING = "grass", "cat"
