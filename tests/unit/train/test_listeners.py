"""Who hears of a run: one listener that fails keeps nothing from the others, and is said of once."""

import threading
from pathlib import Path

import pytest
import ray

from raylens.config import RunConfig, validated
from raylens.storage import open_store
from raylens.train.loop.events import Checkpointed, News, Restarting, Warned
from raylens.train.ray import driver_channel
from raylens.train.run.audience import Audience
from raylens.train.run.event_bus import Listeners
from raylens.train.runs.jsonl import EVENTS, read_records
from tests.helpers.said import Said


def test_the_others_hear_all_and_the_failure_once() -> None:
    heard, said, tried = list[News](), Said(), list[News]()

    def broken(news: News) -> None:
        tried.append(news)
        if news != Checkpointed(3):
            raise KeyError("no such thing")

    listeners = Listeners({"first": heard.append, "second": broken, "third": heard.append}, said)
    for step in (1, 2, 3):
        listeners.tell(Checkpointed(step))
    ((severity, text),) = said.lines
    assert severity == "warning"
    assert text == (
        "second failed at Checkpointed (KeyError: 'no such thing'); training and the others go on, and it is "
        "told what comes next"
    )
    assert tried == [Checkpointed(1), Checkpointed(2), Checkpointed(3)]
    assert [news for news in heard if isinstance(news, Warned)] == [Warned(text)] * 2
    assert [news.step for news in heard if isinstance(news, Checkpointed)] == [1, 1, 2, 2, 3, 3]


def test_nobody_who_could_say_it_is_no_reason_to_stop() -> None:
    heard = list[News]()

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError("standard error is closed")

    listeners = Listeners({"terminal": closed, "file": heard.append}, closed)
    listeners.tell(Checkpointed(1))
    listeners.tell(Checkpointed(2))
    assert [news for news in heard if isinstance(news, Checkpointed)] == [Checkpointed(1), Checkpointed(2)]
    texts = [news.text for news in heard if isinstance(news, Warned)]
    assert [text.split(" failed")[0] for text in texts] == ["say", "terminal"]


class Source:
    """In place of the board's actor."""

    def __init__(self, *news: News) -> None:
        self.news, self.after = list(news), self

    def remote(self, arrived: int) -> list[News]:
        return self.news[arrived : arrived + 1]


def test_a_run_is_followed_to_its_end_though_a_listener_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that brings the news, and all that hear it."""
    monkeypatch.setattr(driver_channel, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(ray, "get", lambda found, **_: found)
    restarting = Restarting("cannot read [/data/x]")
    said, source = Said(), Source(Checkpointed(10), restarting, Checkpointed(20))
    config = validated(
        RunConfig,
        {"name": "r", "data": {"train": "x"}, "tracking": {"tensorboard": False, "prometheus": False}},
    )

    def tell(news: News) -> None:
        if news == restarting:
            raise ValueError("closing tag")
        if news == Checkpointed(20):
            done.set()

    done = threading.Event()
    store = open_store(tmp_path)
    audience = Audience(config, store, tell, said)
    with audience, driver_channel.listening(source, audience.tell):
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
