"""Training runs as their folders describe them, read without Ray."""
