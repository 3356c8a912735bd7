"""Who hears of a run: one listener that fails keeps nothing from the others, and is said of once."""

import threading
from pathlib import Path

import pytest
import ray

from raylens.config import RunConfig, validated
from raylens.storage import open_store
from raylens.train.loop.events import Checkpointed, Restarting, RunEvent, Warned
from raylens.train.ray import driver_channel
from raylens.train.run.event_bus import EventBus, RunObservers
from raylens.train.runs.jsonl import EVENTS, read_records
from tests.helpers.said import Said


def test_the_others_hear_all_and_the_failure_once() -> None:
    heard, said, tried = list[RunEvent](), Said(), list[RunEvent]()

    def broken(event: RunEvent) -> None:
        tried.append(event)
        if event != Checkpointed(3):
            raise KeyError("no such thing")

    listeners = EventBus({"first": heard.append, "second": broken, "third": heard.append}, said)
    for step in (1, 2, 3):
        listeners.on_event(Checkpointed(step))
    ((severity, text),) = said.lines
    assert severity == "warning"
    assert text.startswith("second failed at Checkpointed (KeyError: 'no such thing')")
    assert tried == [Checkpointed(1), Checkpointed(2), Checkpointed(3)]
    assert [event for event in heard if isinstance(event, Warned)] == [Warned(text)] * 2
    assert [event.step for event in heard if isinstance(event, Checkpointed)] == [1, 1, 2, 2, 3, 3]


def test_nobody_who_could_say_it_is_no_reason_to_stop() -> None:
    heard = list[RunEvent]()

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError("standard error is closed")

    listeners = EventBus({"terminal": closed, "file": heard.append}, closed)
    listeners.on_event(Checkpointed(1))
    listeners.on_event(Checkpointed(2))
    assert [event for event in heard if isinstance(event, Checkpointed)] == [Checkpointed(1), Checkpointed(2)]
    texts = [event.text for event in heard if isinstance(event, Warned)]
    assert [text.split(" failed")[0] for text in texts] == ["say", "terminal"]


class Source:
    """In place of the driver channel's actor."""

    def __init__(self, *event: RunEvent) -> None:
        self.event, self.after = list(event), self

    def remote(self, arrived: int) -> list[RunEvent]:
        return self.event[arrived : arrived + 1]


def test_a_run_is_followed_to_its_end_though_a_listener_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that brings the events, and all that hear them."""
    monkeypatch.setattr(driver_channel, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(ray, "get", lambda found, **_: found)
    restarting = Restarting("cannot read [/data/x]")
    said, source = Said(), Source(Checkpointed(10), restarting, Checkpointed(20))
    config = validated(
        RunConfig,
        {"name": "r", "data": {"train": "x"}, "tracking": {"tensorboard": False, "prometheus": False}},
    )

    def on_event(event: RunEvent) -> None:
        if event == restarting:
            raise ValueError("closing tag")
        if event == Checkpointed(20):
            done.set()

    done = threading.Event()
    store = open_store(tmp_path)
    observers = RunObservers(config, store, on_event, said)
    with observers, driver_channel.EventForwarder(source, observers.on_event):
        assert done.wait(30)
    events = [(row["event"], row["step"]) for row in read_records(store, EVENTS)]
    assert events == [
        ("checkpointed", 10),
        ("restarting", 10),
        ("warning", 10),
        ("checkpointed", 20),
        ("finished", 20),
    ]
    assert said.lines == [("warning", read_records(store, EVENTS)[2]["text"])]
