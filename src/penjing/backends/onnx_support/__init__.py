"""What the ONNX backend is made of: reading, roles of weights, observation."""
