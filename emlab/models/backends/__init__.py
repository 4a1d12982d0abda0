"""Ways to apply edits to a model in a forward pass."""
