"""What the readers share: stored arrays, their fit to a model, names, labels."""
