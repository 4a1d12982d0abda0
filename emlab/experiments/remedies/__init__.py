"""Remedies for misalignment, compared on the same trainings."""
