"""Photographs: their path into noise, runs that follow it back, and files that keep it."""
