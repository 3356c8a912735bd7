"""The ``raylens`` command."""

from raylens.workloads.cli.app import app, main

__all__ = ["app", "main"]
