"""Sources that are kept for the next edits of them."""
