"""The commands of this folder: up, down, status, image."""

import argparse
import json
from pathlib import Path

from testbed import images
from testbed.binaries import say
from testbed.cluster import OPEN_REGISTRY, Cluster
from testbed.errors import ClusterError


def up() -> int:
    """Start the cluster, or what is missing of it; print the path of its kubeconfig."""
    _parser(up).parse_args()
    cluster = Cluster()
    try:
        cluster.up()
    except ClusterError as error:
        say(f"testbed/up: {error}")
        return 1
    print(cluster.kubeconfig)
    return 0


def down() -> int:
    """End the cluster and remove everything of it from this machine, but for what is cached."""
    _parser(down).parse_args()
    cluster = Cluster()
    try:
        cluster.down()
        left = cluster.leftovers()
    except ClusterError as error:
        say(f"testbed/down: {error}")
        return 1
    for thing in left:
        say(f"testbed/down: left behind: {thing}")
    return 1 if left else 0


def status() -> int:
    """Say how each component stands; 0 only if all do their work and the node is ready."""
    parser = _parser(status)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    cluster = Cluster()
    conditions = {name: cluster.condition(name) for name in cluster.components()}
    ready = cluster.node_ready()
    well = ready and all(each.state == "running" for each in conditions.values())
    if as_json:
        components = {name: vars(each) for name, each in conditions.items()}
        kubeconfig = str(cluster.kubeconfig)
        told = {"ok": well, "node_ready": ready, "kubeconfig": kubeconfig}
        print(json.dumps({**told, "components": components}))
    else:
        for name, each in conditions.items():
            print(f"{name:24} {each.pid or '-':>8} {each.state}")
        print(f"{'node':24} {'':>8} {'ready' if ready else 'not ready'}")
    return 0 if well else 1


def image() -> int:
    """Build the image of a pipeline's folder, push it, and print its reference with digest."""
    parser = _parser(image)
    parser.add_argument("name", metavar="NAME[:TAG]")
    parser.add_argument("folder", type=Path, metavar="PIPELINE_FOLDER")
    parser.add_argument("--registry", default=OPEN_REGISTRY, help=f"default {OPEN_REGISTRY}")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    chosen = parser.parse_args()
    labels = dict(label.partition("=")[::2] for label in chosen.label)
    try:
        made = images.pipeline(chosen.folder, labels)
        digest = Cluster().push(made, chosen.name, chosen.registry)
    except ClusterError as error:
        say(f"testbed/image: {error}")
        return 1
    print(f"{chosen.registry}/{chosen.name}@{digest}")
    return 0


def _parser(command: object) -> argparse.ArgumentParser:
    name = f"testbed/{getattr(command, '__name__', '')}"
    return argparse.ArgumentParser(prog=name, description=command.__doc__)
