"""Node types of clouds for `ray up`: machines without public addresses, in existing networks."""

import math
from typing import Any

from raylens.cluster.description import ClusterSpec, GroupSpec, MachineSpec, bytes_of
from raylens.cluster.description.launcher import AwsSpec, GcpSpec
from raylens.cluster.ray_up.docker import machine_options
from raylens.config.placement import Group, node_labels
from raylens.errors import ConfigError

__all__ = ["aws_provider", "gcp_provider", "node_types"]

IMAGE_GB = 60
"""Gigabytes of a disk for the machine's operating system and the container's image."""
GB = 10**9
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
HEAD_TYPE = "head"


def node_types(spec: ClusterSpec) -> dict[str, Any]:
    """Return the node types of the head and of the groups.

    Raises:
        ConfigError: a machine has no ``instance_type``, or has a volume of Kubernetes.
    """
    sizes = {name: group.size for name, group in spec.groups.items()}
    head = {
        "min_workers": 0,
        "max_workers": 0,
        # No CPUs, so that Ray places no work on the node that coordinates the cluster and runs the drivers.
        "resources": {"CPU": 0},
        "labels": node_labels("head", sizes) | spec.head.labels,
        "node_config": _machine(spec, HEAD_TYPE, spec.head),
    }
    return {HEAD_TYPE: head} | {name: _group(spec, name, group) for name, group in spec.groups.items()}


def aws_provider(aws: AwsSpec) -> dict[str, Any]:
    """Return the provider of AWS; idle nodes are terminated, because the disk of a stopped node costs money."""
    return {
        "type": "aws",
        "region": aws.region,
        "availability_zone": ",".join(aws.zones),
        "use_internal_ips": True,
        "cache_stopped_nodes": False,
    }


def gcp_provider(gcp: GcpSpec) -> dict[str, Any]:
    """Return the provider of Google Cloud; idle nodes are deleted, as for AWS."""
    return {
        "type": "gcp",
        "region": gcp.region,
        "availability_zone": gcp.zone,
        "project_id": gcp.project,
        "use_internal_ips": True,
        "cache_stopped_nodes": False,
    }


def _group(spec: ClusterSpec, name: Group, group: GroupSpec) -> dict[str, Any]:
    sizes = {other: each.size for other, each in spec.groups.items()}
    node_type: dict[str, Any] = {
        "min_workers": group.min_nodes,
        "max_workers": group.max_nodes,
        "resources": {"CPU": group.cpus} | ({"GPU": group.gpus} if group.gpus else {}) | group.resources,
        "labels": node_labels(name, sizes) | group.labels,
    }
    if group.idle_minutes:
        node_type["idle_timeout_s"] = 60 * group.idle_minutes
    docker = {"worker_image": spec.image_of(group), "worker_run_options": machine_options(spec, name, group)}
    return node_type | {"docker": docker, "node_config": _machine(spec, name, group)}


def _machine(spec: ClusterSpec, name: str, machine: MachineSpec) -> dict[str, Any]:
    assert spec.launcher is not None
    if machine.instance_type is None:
        raise ConfigError(
            f"{name}.instance_type is missing: name the cloud's machine type, e.g. m7i.4xlarge or n2-standard-16"
        )
    if spec.launcher.aws:
        return _aws_machine(spec.launcher.aws, machine.instance_type, machine)
    assert spec.launcher.gcp is not None
    return _gcp_machine(spec.launcher.gcp, machine.instance_type, machine)


def _aws_machine(aws: AwsSpec, kind: str, machine: MachineSpec) -> dict[str, Any]:
    disk = {"VolumeSize": _disk_gb(machine), "VolumeType": "gp3", "Encrypted": True}
    config: dict[str, Any] = {
        "InstanceType": kind,
        "ImageId": aws.machine_image,
        "KeyName": aws.key_name,
        "SubnetIds": list(aws.subnets),
        "SecurityGroupIds": list(aws.security_groups),
        "IamInstanceProfile": {"Arn": aws.instance_profile},
        # The machine's credentials require the two-step protocol (IMDSv2).
        "MetadataOptions": {"HttpTokens": "required"},
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
    }
    if _is_spot(machine):
        config["InstanceMarketOptions"] = {"MarketType": "spot"}
    return config


def _gcp_machine(gcp: GcpSpec, kind: str, machine: MachineSpec) -> dict[str, Any]:
    disk = {"diskSizeGb": _disk_gb(machine), "sourceImage": gcp.machine_image}
    config: dict[str, Any] = {
        "machineType": kind,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
        # Without accessConfigs, machines have no public address.
        "networkInterfaces": [{"subnetwork": gcp.subnetwork}],
        "serviceAccounts": [{"email": gcp.service_account, "scopes": [SCOPE]}],
        "shieldedInstanceConfig": {"enableSecureBoot": False, "enableVtpm": True, "enableIntegrityMonitoring": True},
    }
    if gcp.network_tags:
        config["tags"] = {"items": list(gcp.network_tags)}
    if _is_spot(machine):
        config["scheduling"] = {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "automaticRestart": False,
            "onHostMaintenance": "TERMINATE",
        }
    elif isinstance(machine, GroupSpec) and machine.gpus:
        config["scheduling"] = {"onHostMaintenance": "TERMINATE"}  # machines with GPUs cannot be migrated
    return config


def _disk_gb(machine: MachineSpec) -> int:
    empty = sum(bytes_of(volume.empty) for volume in machine.volumes if volume.empty)
    return IMAGE_GB + math.ceil((bytes_of(machine.scratch) + empty) / GB)


def _is_spot(machine: MachineSpec) -> bool:
    return isinstance(machine, GroupSpec) and machine.spot
