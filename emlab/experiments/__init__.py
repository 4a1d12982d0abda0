"""Experiments: a folder each, with its config, its stages, its run and its page.

A run begins in `run.py`, which reads like the method section of a paper. What several share is in `material`.
"""
