"""Free ports: nobody holds them, and no connection takes them before they are used."""

import socket
from pathlib import Path

import pytest

from raylens import ports
from raylens.ports import EPHEMERAL, free_port


def test_a_port_is_free_and_not_one_that_the_kernel_gives_away() -> None:
    low, high = map(int, EPHEMERAL.read_text().split())
    for _ in range(20):
        port = free_port()
        assert not low <= port <= high
        socket.create_server(("127.0.0.1", port)).close()


def test_the_wanted_port_is_given_where_it_is_free() -> None:
    with socket.socket() as holder:
        holder.bind(("", free_port()))
        taken = int(holder.getsockname()[1])
        assert free_port(taken) != taken
    assert free_port(taken) == taken


@pytest.mark.parametrize("text", ["1024 65535", "20000 65535"])
def test_where_the_kernel_gives_away_all_ports_one_of_those_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "range").write_text(text)
    monkeypatch.setattr(ports, "EPHEMERAL", tmp_path / "range")
    assert free_port() > 1023


def test_without_linux_the_usual_range_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "EPHEMERAL", tmp_path / "nothing")
    low, high = ports.EPHEMERAL_BY_DEFAULT
    assert not low <= free_port() <= high
