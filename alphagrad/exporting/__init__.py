"""Trained networks as ONNX files, and what such a file does: knows modules and tensors only."""
