"""A cluster with Ray's own autoscaler, whose nodes are raylets on this machine (Ray's provider for its tests)."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from raylens.ports import free_port

__all__ = ["autoscaled"]

STORE = 150_000_000


@contextlib.contextmanager
def autoscaled(folder: Path, head_labels: Mapping[str, str], types: Mapping[Any, Any]) -> Iterator[str]:
    """The address of a head without CPUs, which makes nodes of these types when something asks for them."""
    port = free_port()
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_config(f"127.0.0.1:{port}", types)))
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=0"]
    command += [f"--object-store-memory={STORE}", "--include-dashboard=false", f"--autoscaling-config={config}"]
    command += ["--node-ip-address=127.0.0.1", f"--labels={','.join(f'{k}={v}' for k, v in head_labels.items())}"]
    settings = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",
    }
    with subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "--block" in line or "terminating" in line:
                break
        else:
            raise AssertionError("".join(seen))
        try:
            yield f"127.0.0.1:{port}"
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """It, and what it started: nodes of the autoscaler outlive it otherwise."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    for one in started:
        with contextlib.suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(started, timeout=20)


def _config(address: str, types: Mapping[Any, Any]) -> dict[str, Any]:
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    return {
        "cluster_name": "autoscaled",
        "max_workers": 8,
        "idle_timeout_minutes": 10,
        "upscaling_speed": 10,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
        },
        "available_node_types": dict(types) | {"ray.head.default": head},
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "rsync_exclude": [],
        "rsync_filter": [],
    }
