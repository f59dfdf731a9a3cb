"""What a model is judged by.  One file each; ``support`` holds what they share."""
