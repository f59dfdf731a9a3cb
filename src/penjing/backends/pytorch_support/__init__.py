"""How modules of PyTorch become ONNX models, and back."""
