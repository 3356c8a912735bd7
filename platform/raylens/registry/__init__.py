"""Trained encoders at rest: the bundle, and the registry that numbers bundles and names them."""

from raylens.registry.bundle import Bundle
from raylens.registry.encoder import Encoder
from raylens.registry.interpolate import interpolate
from raylens.registry.versions import Registry, Version

__all__ = ["Bundle", "Encoder", "Registry", "Version", "interpolate"]
