"""What people run: the command line, recipes, the quickstart, and the submission of jobs."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.workloads.evaluation import evaluate_model
    from raylens.workloads.quickstart.digits import pack_digits
    from raylens.workloads.recipes.configure import configure
    from raylens.workloads.recipes.sweeps import SWEEPS
    from raylens.workloads.recipes.table import RECIPES
    from raylens.workloads.sweeps import configure_sweep

__all__ = [
    "RECIPES",
    "SWEEPS",
    "configure",
    "configure_sweep",
    "evaluate_model",
    "pack_digits",
]

__getattr__ = lazy_face(
    __name__,
    {
        "RECIPES": "recipes.table",
        "SWEEPS": "recipes.sweeps",
        "configure": "recipes.configure",
        "configure_sweep": "sweeps",
        "evaluate_model": "evaluation",
        "pack_digits": "quickstart.digits",
    },
)
