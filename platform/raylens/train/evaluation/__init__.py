"""Evaluation during a run: all workers embed their share, and the first computes the metrics while training
continues."""
