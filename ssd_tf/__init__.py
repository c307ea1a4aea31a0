"""The SSD object detector for TensorFlow 2 and Keras 3.

The way of the data, a module a step:

    input_pipeline -> nets -> encoder, losses -> train <-> checkpoint
                                                   |
                      detection -> evaluate, export, detect

Boxes are `[ymin, xmin, ymax, xmax]` in [0, 1] everywhere; class 0 is the
background. Importing this package imports neither TensorFlow nor Keras.
"""

__version__ = "0.1.0"
