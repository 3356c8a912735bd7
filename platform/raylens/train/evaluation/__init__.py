"""Evaluation in the course of a run: all workers embed their share, the first works the figures out meanwhile."""
