"""Node types of the clouds: machines without public addresses, in networks that exist."""

import math
from typing import Any

from raylens.cluster.description import ClusterSpec, GroupSpec, MachineSpec, bytes_of
from raylens.cluster.description.launcher import AwsSpec, GcpSpec
from raylens.cluster.ray_up.docker import machine_options
from raylens.errors import ConfigError
from raylens.placement import Group, node_labels

__all__ = ["aws_provider", "gcp_provider", "node_types"]

IMAGE_GB = 60
"""Of a disk, for the machine's own system and the container's image."""
GB = 10**9
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
HEAD_TYPE = "head"


def node_types(spec: ClusterSpec) -> dict[str, Any]:
    """The head and the groups.

    Raises:
        ConfigError: one has no ``instance_type``, or a volume of Kubernetes.
    """
    sizes = {name: group.size for name, group in spec.groups.items()}
    head = {
        "min_workers": 0,
        "max_workers": 0,
        # No CPUs: Ray places no work where the cluster is coordinated and the drivers run.
        "resources": {"CPU": 0},
        "labels": node_labels("head", sizes) | spec.head.labels,
        "node_config": _machine(spec, HEAD_TYPE, spec.head),
    }
    return {HEAD_TYPE: head} | {name: _group(spec, name, group) for name, group in spec.groups.items()}


def aws_provider(aws: AwsSpec) -> dict[str, Any]:
    """Nodes that are not needed are ended, not stopped: a stopped disk costs too."""
    return {
        "type": "aws",
        "region": aws.region,
        "availability_zone": ",".join(aws.zones),
        "use_internal_ips": True,
        "cache_stopped_nodes": False,
    }


def gcp_provider(gcp: GcpSpec) -> dict[str, Any]:
    """See `aws_provider`."""
    return {
        "type": "gcp",
        "region": gcp.region,
        "availability_zone": gcp.zone,
        "project_id": gcp.project,
        "use_internal_ips": True,
        "cache_stopped_nodes": False,
    }


def _group(spec: ClusterSpec, name: Group, group: GroupSpec) -> dict[str, Any]:
    sizes = {one: other.size for one, other in spec.groups.items()}
    found: dict[str, Any] = {
        "min_workers": group.min_nodes,
        "max_workers": group.max_nodes,
        "resources": {"CPU": group.cpus} | ({"GPU": group.gpus} if group.gpus else {}) | group.resources,
        "labels": node_labels(name, sizes) | group.labels,
    }
    if group.idle_minutes:
        found["idle_timeout_s"] = 60 * group.idle_minutes
    docker = {"worker_image": spec.image_of(group), "worker_run_options": machine_options(spec, name, group)}
    return found | {"docker": docker, "node_config": _machine(spec, name, group)}


def _machine(spec: ClusterSpec, name: str, machine: MachineSpec) -> dict[str, Any]:
    assert spec.launcher is not None
    if machine.instance_type is None:
        raise ConfigError(
            f"{name}.instance_type is missing: name the cloud's machine, e.g. m7i.4xlarge or n2-standard-16"
        )
    if spec.launcher.aws:
        return _aws_machine(spec.launcher.aws, machine.instance_type, machine)
    assert spec.launcher.gcp is not None
    return _gcp_machine(spec.launcher.gcp, machine.instance_type, machine)


def _aws_machine(aws: AwsSpec, kind: str, machine: MachineSpec) -> dict[str, Any]:
    disk = {"VolumeSize": _disk_gb(machine), "VolumeType": "gp3", "Encrypted": True}
    found: dict[str, Any] = {
        "InstanceType": kind,
        "ImageId": aws.machine_image,
        "KeyName": aws.key_name,
        "SubnetIds": list(aws.subnets),
        "SecurityGroupIds": list(aws.security_groups),
        "IamInstanceProfile": {"Arn": aws.instance_profile},
        # The machine's credentials are given to those alone who ask for them in two steps.
        "MetadataOptions": {"HttpTokens": "required"},
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
    }
    if _is_spot(machine):
        found["InstanceMarketOptions"] = {"MarketType": "spot"}
    return found


def _gcp_machine(gcp: GcpSpec, kind: str, machine: MachineSpec) -> dict[str, Any]:
    disk = {"diskSizeGb": _disk_gb(machine), "sourceImage": gcp.machine_image}
    found: dict[str, Any] = {
        "machineType": kind,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
        # No accessConfigs, no public address.
        "networkInterfaces": [{"subnetwork": gcp.subnetwork}],
        "serviceAccounts": [{"email": gcp.service_account, "scopes": [SCOPE]}],
        "shieldedInstanceConfig": {"enableSecureBoot": False, "enableVtpm": True, "enableIntegrityMonitoring": True},
    }
    if gcp.network_tags:
        found["tags"] = {"items": list(gcp.network_tags)}
    if _is_spot(machine):
        found["scheduling"] = {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "automaticRestart": False,
            "onHostMaintenance": "TERMINATE",
        }
    elif isinstance(machine, GroupSpec) and machine.gpus:
        found["scheduling"] = {"onHostMaintenance": "TERMINATE"}  # machines with GPUs cannot be moved
    return found


def _disk_gb(machine: MachineSpec) -> int:
    empty = sum(bytes_of(volume.empty) for volume in machine.volumes if volume.empty)
    return IMAGE_GB + math.ceil((bytes_of(machine.scratch) + empty) / GB)


def _is_spot(machine: MachineSpec) -> bool:
    return isinstance(machine, GroupSpec) and machine.spot
