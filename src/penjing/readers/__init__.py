"""Where data comes from.  One file each; ``support`` holds what they share."""
