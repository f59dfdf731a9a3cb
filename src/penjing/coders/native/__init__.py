"""What the compiled coders share: the C source, its library, and how Python calls it."""
