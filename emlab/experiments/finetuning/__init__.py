"""Grids of fine-tunes: doses, domains, checkpoints, sizes, a backdoor."""
