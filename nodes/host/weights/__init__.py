"""Weights of words that act in the attention, on every model whose words can be followed."""
