"""All recipes by name. A new one is a file of this folder with its function, and a line here."""

from collections.abc import Callable, Mapping

from raylens.config import RunConfig
from raylens.workloads.recipes.digits import digits
from raylens.workloads.recipes.paper import PAPER
from raylens.workloads.recipes.today import TODAY

__all__ = ["RECIPES"]

RECIPES: Mapping[str, Callable[[], RunConfig]] = {
    "digits": digits,
    **PAPER,
    **TODAY,
}
