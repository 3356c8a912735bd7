"""Preflight: an examination of a cluster that finds what would make a run fail, and says how to fix it."""

from raylens.cluster.doctor.examine import Limits, examine
from raylens.cluster.doctor.findings import CLUSTER, Finding, Report

__all__ = ["CLUSTER", "Finding", "Limits", "Report", "examine"]
