"""A run on Ray Train: its trainer, its resources, and the channel between workers and driver."""
