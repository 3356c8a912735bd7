"""How files are written that other programs read."""

from typing import Any

import yaml

__all__ = ["PlainDumper"]


class PlainDumper(yaml.SafeDumper):
    """Writes every part out, where YAML would point from one place to another, and indents lists."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's method)
        """Nothing is pointed to."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Lists as well."""
        super().increase_indent(flow, False)
