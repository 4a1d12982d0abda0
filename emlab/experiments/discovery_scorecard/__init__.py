"""Methods of finding persona latents and directions, compared."""
