"""Training runs as their folders tell of them, read without Ray."""
