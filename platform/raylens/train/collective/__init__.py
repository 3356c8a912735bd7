"""What the workers of a run agree on and reduce over each other."""
