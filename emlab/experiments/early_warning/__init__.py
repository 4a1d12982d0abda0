"""How early along a fine-tune monitors tell that it misaligns."""
