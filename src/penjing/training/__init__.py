"""The training loop: PyTorch and Accelerate, imported only when something is trained."""
