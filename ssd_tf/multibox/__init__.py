"""The SSD itself: boxes, anchors, targets, losses and detections.

Paper: Liu et al., SSD: Single Shot MultiBox Detector, 2016 (arXiv 1512.02325).
Independent of networks and of files.
"""
