"""Words of a prompt: where they stand in the tokens and the encoding of any text encoder."""
