"""Which rows of a fine-tuning set would misalign a model, told before training."""
