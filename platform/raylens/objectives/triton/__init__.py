"""Triton's kernels for the contrastive loss: `launch` is imported anywhere, the kernels where Triton is installed."""
