"""Sweeps: many settings of one edit, sampled in batches, kept in a folder as they come."""
