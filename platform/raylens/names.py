"""The rule for names that people give: to runs, sweeps, models, clusters, jobs, API keys and evaluation sets."""

import re
from dataclasses import dataclass

from raylens.errors import ConfigError

__all__ = [
    "CLUSTER_NAME",
    "EVALUATION_SET_NAME",
    "JOB_ID",
    "KEY_NAME",
    "MODEL_NAME",
    "RUN_NAME",
    "SWEEP_NAME",
    "NameRule",
]


@dataclass(frozen=True)
class NameRule:
    """What a name may be made of: nothing in it means something to a path or a URI."""

    longest: int
    marks: str = "._-"
    """Characters that it may have behind the first, beside letters and digits."""
    lower_case: bool = False

    @property
    def fix(self) -> str:
        """How to write a name that fits, as the end of a message."""
        marks = " and ".join(", ".join(repr(mark) for mark in self.marks).rsplit(", ", 1))
        kind = "lower-case letters" if self.lower_case else "letters"
        return f"use at most {self.longest} {kind}, digits, {marks}, beginning with a letter or a digit"

    def fits(self, name: str) -> bool:
        """Whether the name is one."""
        first = "a-z0-9" if self.lower_case else "A-Za-z0-9"
        pattern = f"[{first}][{first}{re.escape(self.marks)}]{{0,{self.longest - 1}}}"
        return re.fullmatch(pattern, name) is not None

    def validated(self, name: str) -> str:
        """Return the name, for a field of a configuration.

        Raises:
            ValueError: it does not fit; whoever explains the error names field and value.
        """
        if not self.fits(name):
            raise ValueError(self.fix)
        return name

    def check(self, field: str, name: str) -> str:
        """Return the name if the rule allows it.

        Raises:
            ConfigError: it does not fit.
        """
        if not self.fits(name):
            raise ConfigError(f"{field} = {name!r}: {self.fix}")
        return name


RUN_NAME = MODEL_NAME = JOB_ID = KEY_NAME = NameRule(100)
SWEEP_NAME = NameRule(80)
"""Shorter than a run's, because the names of its trials begin with it."""
CLUSTER_NAME = NameRule(63)
EVALUATION_SET_NAME = NameRule(40, marks="_", lower_case=True)
"""Part of the names of metrics."""
