"""A client in another language, from the published .proto files alone: applies a set, follows the watch, scales and
updates the set, and sees each change arrive once and in order.

Usage: scale_and_watch.py PROTO_DIR HOST:PORT
"""

import importlib
import sys
import tempfile
import threading

import grpc
from grpc_tools import protoc


def compile_protos(proto_dir):
    out = tempfile.mkdtemp(prefix="holdfast-client-")
    names = ["objects", "common", "statefulsets", "history"]
    files = [f"{proto_dir}/holdfast/v1/{name}.proto" for name in names]
    arguments = ["protoc", f"-I{proto_dir}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    if protoc.main(arguments) != 0:
        sys.exit("the published .proto files do not compile")
    sys.path.insert(0, out)
    return {
        name: importlib.import_module(f"holdfast.v1.{name}_pb2{suffix}")
        for name, suffix in [("objects", ""), ("statefulsets", ""), ("history", "")]
    } | {
        "sets": importlib.import_module("holdfast.v1.statefulsets_pb2_grpc"),
        "watch": importlib.import_module("holdfast.v1.history_pb2_grpc"),
    }


def sample_set(pb, image):
    labels = {"app": "py"}
    container = pb["objects"].Container(name="main", image=image, command=["sleep", "1000"])
    template = pb["objects"].PodTemplateSpec(
        metadata=pb["objects"].ObjectMeta(labels=labels),
        spec=pb["objects"].PodSpec(containers=[container], termination_grace_period_seconds=1),
    )
    spec = pb["objects"].StatefulSetSpec(
        replicas=1,
        service_name="py",
        selector=pb["objects"].StatefulSetSelector(match_labels=labels),
        template=template,
    )
    metadata = pb["objects"].ObjectMeta(name="py", namespace="default")
    return pb["objects"].StatefulSet(api_version="apps/v1", kind="StatefulSet", metadata=metadata, spec=spec)


def main():
    proto_dir, address = sys.argv[1:]
    pb = compile_protos(proto_dir)
    channel = grpc.insecure_channel(address)
    sets = pb["sets"].StatefulSetsStub(channel)
    history = pb["watch"].HistoryStub(channel)
    requests = pb["statefulsets"]

    first = sets.Apply(requests.ApplyStatefulSetRequest(object=sample_set(pb, "busybox:1"), request_id="py-1"), timeout=30)
    again = sets.Apply(requests.ApplyStatefulSetRequest(object=sample_set(pb, "busybox:1"), request_id="py-1"), timeout=30)
    assert again.object.metadata.uid == first.object.metadata.uid, "a retry is applied once"

    seen, done = [], threading.Event()
    stream = history.Watch(pb["history"].WatchRequest(since_revision=first.revision, kinds=["Pod", "StatefulSet"]), timeout=90)

    def follow():
        try:
            for reply in stream:
                seen.extend((event.revision, event.type, event.name) for event in reply.events)
                made = {name for _, kind, name in seen if kind == "PodCreated"}
                # py-0 was made before the watch began: seen here, it is the one of the new template.
                if {"py-0", "py-1"} <= made:
                    done.set()
                    return
        except grpc.RpcError as error:
            print(error, file=sys.stderr)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    sets.Scale(requests.ScaleStatefulSetRequest(namespace="default", name="py", replicas=2, request_id="py-2"), timeout=30)
    updated = sample_set(pb, "busybox:2")
    updated.spec.replicas = 2
    sets.Apply(requests.ApplyStatefulSetRequest(object=updated, request_id="py-3"), timeout=30)
    assert done.wait(timeout=80), f"the update did not reach every pod: {seen}"
    stream.cancel()
    revisions = [revision for revision, _, _ in seen]
    assert revisions == sorted(set(revisions)), "events are ordered and unique"
    print(f"seen {len(seen)} events, up to revision {revisions[-1]}")


if __name__ == "__main__":
    main()
