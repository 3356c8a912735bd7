"""Checkpoints: written beside training, complete or absent, and readable by any number of workers."""
