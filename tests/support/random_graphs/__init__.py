"""Random graphs of edits, and what must hold of each of them."""
