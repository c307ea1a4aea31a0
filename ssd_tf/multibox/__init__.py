"""The SSD itself, in the order of the paper.

Liu et al., SSD: Single Shot MultiBox Detector, 2016
(https://arxiv.org/abs/1512.02325v5):

  boxes        geometry: area, IoU, clipping, centre form
  anchors      default boxes of every feature layer (2.2; equation 4)
  anchor_axis  per-layer tensors <-> one axis of all anchors
  encoder      matching of boxes with anchors, offsets (2.2; equation 2)
  losses       hard negative mining and the loss (2.2; equations 1 to 3)
  detection    decoding, selection, non-maximum suppression (3.7)

Independent of networks and of files.
"""
