"""What a person sees: text as it is, whatever it looks like."""

import io

import pytest
from rich.console import Console

from raylens.train.loop.events import Restarting, RunEvent, Warned
from raylens.workloads.pages.terminal import Terminal

ODD = "cannot read [/data/x]: [red]no[/red] such file \\[bold] :smile:"


def shown(event: RunEvent | str, *, colour: bool = False) -> str:
    terminal, sink = Terminal(), io.StringIO()
    # Whatever the environment says of colours.
    terminal.console = Console(
        file=sink,
        highlight=False,
        width=400,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
    )
    if isinstance(event, str):
        terminal.title(event)
        terminal.say(event)
    else:
        terminal.on_event(event)
    return sink.getvalue()


@pytest.mark.parametrize("event", [Restarting(ODD), Warned(ODD), ODD], ids=["restarting", "warned", "said"])
def test_brackets_are_text(event: RunEvent | str) -> None:
    found = shown(event)
    assert found.count(ODD) == (2 if isinstance(event, str) else 1)
    assert " s  " in found.splitlines()[-1]


def test_what_went_wrong_is_yellow() -> None:
    assert f"\x1b[33mworkers lost ({ODD}); restarting from the newest checkpoint\x1b[0m" in shown(
        Restarting(ODD), colour=True
    )
    assert f"\x1b[33mwarning: {ODD}\x1b[0m" in shown(Warned(ODD), colour=True)
