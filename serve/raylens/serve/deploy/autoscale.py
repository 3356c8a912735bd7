"""Autoscaling by pending items instead of requests, because a request may have one or two thousand items.

Ray Serve's controller imports this module, and with it nothing else of raylens.
"""

import math
from typing import Any

from ray.serve.config import AutoscalingContext

__all__ = ["replicas_for_items"]


def replicas_for_items(ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """Implement Ray Serve's policy: return the number of replicas that brings the items of each to the target.

    `EncoderReplica.record_autoscaling_stats` reports the items, which Ray Serve averages over the look-back period; the
    target is the deployment's ``target_ongoing_requests``. Ray Serve itself applies bounds and delays.
    """
    items = sum((ctx.aggregated_metrics or {}).get("items", {}).values())
    assert ctx.config is not None
    target = float(ctx.config.target_ongoing_requests)
    return max(1, math.ceil(items / target)), {}
