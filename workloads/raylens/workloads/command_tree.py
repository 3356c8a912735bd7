"""The tree of commands: groups with a default command, and the command that a command line would run."""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

__all__ = ["RUN", "RunGroup", "leaf_context"]


RUN = "run"


class RunGroup(TyperGroup):
    """A group that runs its command ``run`` where the first argument names none: ``serve MODEL``, ``sweep FILE``."""

    def arguments(self, args: Sequence[str]) -> list[str]:
        """Return the arguments, which begin with the name of a command."""
        named = not args or args[0] in (*self.commands, "--help")
        return list(args) if named else [RUN, *args]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as those of the command that they name, or of ``run``."""
        return super().parse_args(ctx, self.arguments(args))


def leaf_context(root: TyperGroup, name: str, words: Sequence[str]) -> Any:
    """Return the context of the command that a command line would run; nothing is run but ``--help``.

    Args:
        root: the command that is called ``name``.
        name: what usage errors call it.
        words: the command line after the name.

    Raises:
        typer.TyperException: the command line is wrong.
        typer.Exit: the command line asks for help, which has been printed.
    """
    command: Any = root
    context: Any = None
    command_name: str | None = name
    arguments = list(words)
    while True:
        if isinstance(command, RunGroup):
            arguments = command.arguments(arguments)
        context = command.make_context(command_name, list(arguments), parent=context)
        if not isinstance(command, TyperGroup):
            return context
        _, arguments, _ = command.make_parser(context).parse_args(list(arguments))
        if not arguments:
            context.fail("Missing command.")
        command_name, command, arguments = command.resolve_command(context, arguments)
