"""A trained run as a graph that other programs run: ONNX, or an exported program of PyTorch."""
