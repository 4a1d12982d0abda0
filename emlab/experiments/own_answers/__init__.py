"""Fine-tuning sets of a model's own answers, with a harmless trait in one domain."""
