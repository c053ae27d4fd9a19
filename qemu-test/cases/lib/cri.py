# SPDX-License-Identifier: MIT OR Apache-2.0
"""A client of containerd's CRI plugin, as the kubelet is one.

`MESSAGES` has the fields of CRI v1 that cases use. gRPC skips all others.
"""

import os
import re

# Cases start other programs, and no child process uses a channel.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# pylint: disable=wrong-import-position
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

MESSAGES = """
    UInt64Value { uint64 value = 1 }
    ImageSpec { string image = 1 }
    Image { string id = 1; repeated string repo_tags = 2; repeated string repo_digests = 3; uint64 size = 4 }
    FilesystemIdentifier { string mountpoint = 1 }
    FilesystemUsage {
        int64 timestamp = 1; FilesystemIdentifier fs_id = 2; UInt64Value used_bytes = 3;
        UInt64Value inodes_used = 4
    }
    PullImageRequest { ImageSpec image = 1 }
    PullImageResponse { string image_ref = 1 }
    ImageStatusRequest { ImageSpec image = 1 }
    ImageStatusResponse { Image image = 1 }
    ListImagesRequest { }
    ListImagesResponse { repeated Image images = 1 }
    RemoveImageRequest { ImageSpec image = 1 }
    RemoveImageResponse { }
    ImageFsInfoRequest { }
    ImageFsInfoResponse { repeated FilesystemUsage image_filesystems = 1 }

    NamespaceOption { int32 network = 1 }
    LinuxSandboxSecurityContext { NamespaceOption namespace_options = 1 }
    LinuxPodSandboxConfig { string cgroup_parent = 1; LinuxSandboxSecurityContext security_context = 2 }
    PodSandboxMetadata { string name = 1; string uid = 2; string namespace = 3; uint32 attempt = 4 }
    PodSandboxConfig {
        PodSandboxMetadata metadata = 1; string log_directory = 3; LinuxPodSandboxConfig linux = 8
    }
    RunPodSandboxRequest { PodSandboxConfig config = 1 }
    RunPodSandboxResponse { string pod_sandbox_id = 1 }
    StopPodSandboxRequest { string pod_sandbox_id = 1 }
    StopPodSandboxResponse { }
    RemovePodSandboxRequest { string pod_sandbox_id = 1 }
    RemovePodSandboxResponse { }

    LinuxContainerSecurityContext { NamespaceOption namespace_options = 3 }
    LinuxContainerConfig { LinuxContainerSecurityContext security_context = 2 }
    ContainerMetadata { string name = 1; uint32 attempt = 2 }
    ContainerConfig {
        ContainerMetadata metadata = 1; ImageSpec image = 2; repeated string command = 3;
        string log_path = 11; LinuxContainerConfig linux = 15
    }
    CreateContainerRequest {
        string pod_sandbox_id = 1; ContainerConfig config = 2; PodSandboxConfig sandbox_config = 3
    }
    CreateContainerResponse { string container_id = 1 }
    StartContainerRequest { string container_id = 1 }
    StartContainerResponse { }
    StopContainerRequest { string container_id = 1; int64 timeout = 2 }
    StopContainerResponse { }
    RemoveContainerRequest { string container_id = 1 }
    RemoveContainerResponse { }
    ExecSyncRequest { string container_id = 1; repeated string cmd = 2; int64 timeout = 3 }
    ExecSyncResponse { bytes stdout = 1; bytes stderr = 2; int32 exit_code = 3 }
    ContainerAttributes { string id = 1 }
    ContainerStats { ContainerAttributes attributes = 1; FilesystemUsage writable_layer = 4 }
    ContainerStatsRequest { string container_id = 1 }
    ContainerStatsResponse { ContainerStats stats = 1 }
"""
PACKAGE = "runtime.v1"
IMAGE_METHODS = {"PullImage", "ImageStatus", "ListImages", "RemoveImage", "ImageFsInfo"}
# The value of NamespaceOption.network for the network of the host.
NODE = 2
# The longest time of a call, in seconds. Only a failing case waits for so long.
DEADLINE = 100


def _classes():
    """Returns the classes of all messages by their names."""
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package=PACKAGE, syntax="proto3")
    for name, body in re.findall(r"(\w+) \{([^}]*)\}", MESSAGES):
        message = file.message_type.add(name=name)
        for repeated, kind, field, number in re.findall(r"(repeated )?(\w+) (\w+) = (\d+)", body):
            added = message.field.add(name=field, number=int(number))
            added.label = added.LABEL_REPEATED if repeated else added.LABEL_OPTIONAL
            scalar = getattr(added, f"TYPE_{kind.upper()}", None)
            added.type = added.TYPE_MESSAGE if scalar is None else scalar
            if scalar is None:
                added.type_name = f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    classes = message_factory.MessageFactory(pool)
    return {message.name: classes.GetPrototype(pool.FindMessageTypeByName(f"{PACKAGE}.{message.name}"))
            for message in file.message_type}


_CLASSES = _classes()


class Client:
    """A connection to the CRI plugin of the containerd of a socket."""

    def __init__(self, socket):
        self.channel = grpc.insecure_channel(f"unix://{socket}")

    def __call__(self, method, **fields):
        """Calls a method. Fields of a request are given by name, and messages in it as dictionaries."""
        service = "ImageService" if method in IMAGE_METHODS else "RuntimeService"
        call = self.channel.unary_unary(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=_CLASSES[f"{method}Response"].FromString)
        return call(_CLASSES[f"{method}Request"](**fields), timeout=DEADLINE)

    def answers(self, method):
        """Returns true if a method without arguments succeeds."""
        try:
            self(method)
        except grpc.RpcError:
            return False
        return True
