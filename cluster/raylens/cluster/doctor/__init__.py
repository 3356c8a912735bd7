"""Preflight: what of a cluster would stand in the way of a run, and what to do about it."""

from raylens.cluster.doctor.examine import Limits, examine
from raylens.cluster.doctor.findings import CLUSTER, Finding, Report

__all__ = ["CLUSTER", "Finding", "Limits", "Report", "examine"]
