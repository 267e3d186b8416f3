"""Attention control: a source and its edits, sampled side by side."""
