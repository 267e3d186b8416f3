"""Samplers of the host: their steps, their noise, and what each of them can do."""
