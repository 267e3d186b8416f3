"""Model families: their layers, their texts and their limits, one file each."""
