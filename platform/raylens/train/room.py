"""Whether a cluster has room for a run."""

import ray

from raylens.config import RunConfig
from raylens.errors import ClusterError

__all__ = ["DATA_CPUS", "check_room"]

DATA_CPUS = 1
"""CPUs that must be left for the stream; without one, training and data wait for each other for ever."""


def check_room(config: RunConfig) -> None:
    """Say at once what Ray would wait for for ever.

    Raises:
        ClusterError: there is not enough for the fewest workers; names the setting.
    """
    scale, have, least = config.scale, ray.cluster_resources(), config.worker_counts[0]
    key = "scale.workers" if scale.min_workers is None else "scale.min_workers"
    for what, each, extra in (("CPU", scale.cpus_per_worker, DATA_CPUS), ("GPU", scale.gpus_per_worker, 0)):
        wanted = least * each + extra
        if have.get(what, 0.0) < wanted:
            raise ClusterError(
                f"{key} = {least} with scale.{what.lower()}s_per_worker = {each} need {wanted} {what}s"
                f"{f' ({extra} of them to read data)' if extra else ''}, the cluster has {have.get(what, 0.0):g}: "
                f"lower {key}, or use a larger cluster (--num-cpus declares more logical CPUs on one machine)"
            )
