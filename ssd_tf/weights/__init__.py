"""Weights of other software, one source format per file, and starts from them."""
