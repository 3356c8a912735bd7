"""The form of YAML in files that other programs read."""

from typing import Any

import yaml

__all__ = ["PlainDumper"]


class PlainDumper(yaml.SafeDumper):
    """A dumper that repeats equal parts instead of referring to them by anchors, and that indents lists."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's method)
        """Implement PyYAML's hook: write every part out."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Implement PyYAML's hook: indent lists as well."""
        super().increase_indent(flow, False)
