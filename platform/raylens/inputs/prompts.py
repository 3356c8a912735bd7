"""Prompts of zero-shot classification: class names set into templates (Radford et al. 2021, section 3.1.4)."""

import unicodedata
from collections.abc import Sequence

from raylens.errors import ConfigError

__all__ = ["CAPTION_TEMPLATES", "check_class_names", "fill_templates"]

CAPTION_TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.", "{}")
"""The default templates: short, and true of most images."""


def check_class_names(names: Sequence[str]) -> None:
    """Refuse class names with which accuracy would be meaningless.

    Raises:
        ConfigError: there are fewer than two classes, or a name is empty or occurs twice.
    """
    if len(names) < 2:
        raise ConfigError(f"classes = {list(names)!r}: a classification needs at least two")
    seen: set[str] = set()
    for name in names:
        # Compared after the tokenizer's cleaning: names of equal ids have equal scores for every image.
        folded = " ".join(unicodedata.normalize("NFC", name).lower().split())
        if not folded:
            raise ConfigError(f"classes: an empty class name among {list(names)!r}")
        if folded in seen:
            raise ConfigError(f"classes: {name!r} occurs twice; ties would be broken by order, not by the image")
        seen.add(folded)


def fill_templates(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Set each class name into each template: return ``C`` lists of ``P`` prompts.

    Raises:
        ConfigError: there is no template, or one has not exactly one ``{}``.
    """
    if not templates:
        raise ConfigError("templates: give at least one, such as 'a photo of a {}.'")
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(f"templates: {template!r} must have '{{}}' exactly once, where the class name goes")
    return [[template.replace("{}", name) for template in templates] for name in names]
