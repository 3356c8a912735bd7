"""The work of ``raylens models interpolate``: registering models between two others."""

from collections.abc import Iterator, Sequence

from raylens.registry import Registry, interpolate

__all__ = ["interpolation_text"]


def interpolation_text(base: str, tuned: str, alphas: Sequence[float], name: str, registry: str) -> Iterator[str]:
    """Publish a version for each share in their order, and yield a line for each.

    Raises:
        NotFoundError: there is no such model.
        ConfigError: a share is out of range.
        BundleError: the two differ in more than their weights.
    """
    models = Registry(registry)
    (first, before), (second, after) = models.load(base), models.load(tuned)
    # All are made before any is published: a share out of range must not leave some of the models behind.
    made = [(alpha, interpolate(before.bundle, after.bundle, alpha)) for alpha in alphas]
    for alpha, bundle in made:
        yield f"{models.publish(name, bundle)}  {1 - alpha:.4g} of {first}, {alpha:.4g} of {second}"
