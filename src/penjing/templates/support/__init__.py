"""The networks that templates are made of, in PyTorch; no plug-ins here."""
