"""TensorRT: plans for named GPUs from the graphs of a bundle, built ahead of time, read back, and cached by content."""
