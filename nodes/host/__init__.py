"""The only code that knows the host: models, prompts, attention, sampling, noise."""
