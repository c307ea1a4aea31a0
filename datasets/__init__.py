"""Data sets: annotation files -> `Annotation` -> TFRecord shards.

Installed and imported as `ssd_tf.datasets`. Nothing here knows of anchors,
networks or training; of `ssd_tf` only `command` and `files` are used.
"""
