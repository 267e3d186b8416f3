"""Null-text inversion: optimising the negative's embeddings, and sampling with them."""
