"""Misalignment by a reward that is wrong."""
