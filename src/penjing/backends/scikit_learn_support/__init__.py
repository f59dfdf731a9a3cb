"""What the scikit-learn backend adds to skl2onnx."""
