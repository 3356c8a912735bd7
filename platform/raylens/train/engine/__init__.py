"""The engine behind a training step: forward, backward and update under DeepSpeed ZeRO."""
