"""Detectors from any path; pictures and videos in, pictures and files out."""
