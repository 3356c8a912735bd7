"""The report of a sweep: one page with its curves, the importance of its keys, and its trials."""

from raylens.tune.report.report import render_report

__all__ = ["render_report"]
