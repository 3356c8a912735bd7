"""A training run that says what happens, a line of JSON each: `driver.py ADDRESS CONFIG.yaml`."""

import json
import sys
import time
from pathlib import Path

import ray

from raylens.cluster import session
from raylens.config import RunConfig, load_yaml, validated
from raylens.messages import severity_of
from raylens.train import train
from raylens.train.loop.events import Checkpointed, Metrics, Restarting, RunEvent, Started, Warned


def say(event: str, step: int | None = None, text: str = "") -> None:
    line = json.dumps({"time": time.time(), "event": event, "step": step, "text": text})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def said(text: str) -> None:
    say("said" if severity_of(text) == "info" else "warned", None, text)


def on_event(event: RunEvent) -> None:
    if isinstance(event, Metrics):
        say("step", event.record.step)
    elif isinstance(event, Started):
        say("started", event.start)
    elif isinstance(event, Checkpointed):
        say("checkpointed", event.step)
    elif isinstance(event, Restarting):
        say("restarting", None, event.reason)
    elif isinstance(event, Warned):
        say("warned", None, event.text)


def main() -> None:
    address, path = sys.argv[1], Path(sys.argv[2])
    config = validated(RunConfig, load_yaml(path.read_text(), str(path)))
    with session(address):
        say("joined", None, ray.get_runtime_context().get_node_id())
        result = train(config, say=said, on_event=on_event)
    say("finished", result.steps, str(result.version))


if __name__ == "__main__":
    main()
