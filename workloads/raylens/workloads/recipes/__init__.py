"""Recipes: functions that return a complete `RunConfig`, single keys of which a file or ``--set`` may change."""

from raylens.workloads.recipes.configure import configure
from raylens.workloads.recipes.digits import digits
from raylens.workloads.recipes.paper import vit_b32
from raylens.workloads.recipes.table import RECIPES

__all__ = ["RECIPES", "configure", "digits", "vit_b32"]
