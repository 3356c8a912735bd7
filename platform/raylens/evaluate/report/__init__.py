"""The report of an evaluation: one page with its accuracy, images, mistakes and classes."""

from raylens.evaluate.report.report import render_report, write_report

__all__ = ["render_report", "write_report"]
