"""Conversion of annotated images into TFRecord shards."""
