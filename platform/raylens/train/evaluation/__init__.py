"""Evaluation during a run: all workers embed their share; the first computes the metrics beside training."""
