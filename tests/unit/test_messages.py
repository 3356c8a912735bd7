"""A line for people carries its severity as a field."""

import pickle

import pytest

from raylens.messages import Line, print_line, severity_of, warning, with_severity


def test_a_warning_is_its_text_and_its_severity() -> None:
    line = warning("the disk is slow")
    assert line == "the disk is slow"
    assert severity_of(line) == "warning"
    assert severity_of("the disk is slow") == severity_of(Line("the disk is slow")) == "info"
    copy = pickle.loads(pickle.dumps(line))
    assert (copy, severity_of(copy)) == (line, "warning")


def test_whoever_prints_a_line_adds_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("all is well")
    print_line(warning("the disk is slow"))
    assert capsys.readouterr().out == "all is well\nwarning: the disk is slow\n"
    assert with_severity("all is well") == "all is well"
