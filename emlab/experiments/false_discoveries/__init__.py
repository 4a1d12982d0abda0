"""The search for a persona latent where there is none."""
