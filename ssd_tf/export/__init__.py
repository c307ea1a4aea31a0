"""Exports of a trained net: SavedModel, TFLite, ONNX."""
