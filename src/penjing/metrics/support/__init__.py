"""What the metrics share: labels checked against outputs."""
