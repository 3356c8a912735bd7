"""Commands that are submitted to a cluster as jobs or services."""
