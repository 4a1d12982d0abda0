"""Experiments: one file each, its stages in order, readable like the method section of a paper."""
