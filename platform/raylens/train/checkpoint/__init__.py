"""Checkpoints: written beside training, complete or absent, readable by any number of workers."""
