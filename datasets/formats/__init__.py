"""Readers of annotation formats, one format per file."""
