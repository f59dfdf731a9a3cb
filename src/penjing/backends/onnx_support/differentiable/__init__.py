"""ONNX graphs as differentiable functions in PyTorch; imported only for training."""
