"""What experiments share: models, data, judges, SAEs, and how a run ends."""
