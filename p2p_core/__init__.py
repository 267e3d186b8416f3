"""Prompt-to-Prompt image editing in pure torch: no host, no I/O, one technique per file."""
