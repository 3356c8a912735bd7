"""Recipes: functions that return a complete `RunConfig`. A file or ``--set`` changes single keys of one."""

from raylens.workloads.recipes.configure import configure
from raylens.workloads.recipes.digits import digits
from raylens.workloads.recipes.paper import vit_b32
from raylens.workloads.recipes.table import RECIPES

__all__ = ["RECIPES", "configure", "digits", "vit_b32"]
