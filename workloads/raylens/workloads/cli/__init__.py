"""The ``raylens`` command: its root and a module for each group of commands."""

from raylens.workloads.cli.app import app, main

__all__ = ["app", "main"]
