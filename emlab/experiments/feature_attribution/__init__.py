"""Which latents a model's answers are attributed to."""
