"""Model families: their layers, their texts and their limits; and what a probe finds out."""
