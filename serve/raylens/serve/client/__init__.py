"""Clients of the embedding API, synchronous and asynchronous."""
