"""Detections against ground truth: metrics, analysis and a report."""
