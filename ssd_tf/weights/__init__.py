"""Weights of other software: one source format per file."""
