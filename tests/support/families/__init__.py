"""Transformer models in miniature: true checkpoints' keys, tiny widths, the host's own loader."""
