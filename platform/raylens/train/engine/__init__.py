"""The engine of a training step: forward pass, backward pass and update under DeepSpeed ZeRO."""
