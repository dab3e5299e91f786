"""Graphs of a model in ONNX: which there are, how they are written, fused and folded."""
