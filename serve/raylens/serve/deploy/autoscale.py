"""How many replicas a tower wants: by the items in their queues, because a request may have one or two thousand."""

import math
from typing import Any

from ray.serve.config import AutoscalingContext

__all__ = ["replicas_for_items"]


def replicas_for_items(ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """Ray Serve's policy function: as many as bring the items of each to the target, within the bounds.

    The items are what `EncoderReplica.record_autoscaling_stats` reports, averaged over the look-back period; the
    target is the deployment's ``target_ongoing_requests``. Ray Serve itself applies bounds and delays.
    """
    items = sum((ctx.aggregated_metrics or {}).get("items", {}).values())
    assert ctx.config is not None
    target = float(ctx.config.target_ongoing_requests)
    return max(1, math.ceil(items / target)), {}
