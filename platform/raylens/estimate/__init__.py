"""Estimates made before a run is started: operations, memory, network traffic and time of its steps."""
