"""Weights of other software: one source format a file."""
