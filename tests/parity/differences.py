"""In what a cluster may differ from one machine: all of it, ten at most.

The page ``docs/reference/differences.md`` tells people the same; ``test_docs.py`` compares the
two. A difference that is told and not seen fails as one that is seen and not told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """One difference. ``seen`` is what a cluster shows: scenario to path in its trace to value."""

    name: str
    reason: str
    seen: Mapping[str, Mapping[str, Any]]


_LOCAL_ONLY = ...  # what a trace has not

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "carriage return",
        "containerd drops a carriage return before a newline when it writes the node's log",
        {"a carriage return before the newline": {"log/bytes": r"dos\nunix\n"}},
    ),
    Difference(
        "unfinished line",
        "containerd passes output on by lines, or by 16 KiB",
        {"progress without a newline": {"while it ran/bytes": ""}},
    ),
    Difference(
        "two streams",
        "containerd reads standard output and standard error from two pipes",
        {"two streams at once": {"both in order": False}},
    ),
    Difference(
        "signal",
        "Kubernetes tells an exit code alone, so a death by signal N looks like exit(128 + N)",
        {
            "exit 137 by itself": {
                "how/message": "exit code 137, which is what a death by SIGKILL gives; "
                "a process of it may have run out of memory"
            },
            "killed by SIGKILL": {
                "how/reason": "Error",
                "how/message": "exit code 137, which is what a death by SIGKILL gives; "
                "a process of it may have run out of memory",
            },
            "killed by SIGSEGV": {
                "how/reason": "Error",
                "how/message": "exit code 139, which is what a death by SIGSEGV gives",
            },
            "killed by SIGTERM of its own": {
                "how/reason": "Error",
                "how/message": "exit code 143, which is what a death by SIGTERM gives",
            },
        },
    ),
    Difference(
        "descendants",
        "a container ends with its first process: the kernel kills what it left, unasked",
        {"a descendant outlives it": {"log/bytes": r"parent\nchild\n"}},
    ),
    Difference(
        "whole seconds",
        "Kubernetes writes times in whole seconds, and counts timeouts in them",
        {"times of a job": {"more than whole seconds": False}},
    ),
    Difference(
        "variables of the cluster",
        "the kubelet adds the pod's host name and where the API server is",
        {
            "the whole environment": dict.fromkeys(
                (
                    "HOSTNAME", "KUBERNETES_PORT", "KUBERNETES_PORT_443_TCP",
                    "KUBERNETES_PORT_443_TCP_ADDR", "KUBERNETES_PORT_443_TCP_PORT",
                    "KUBERNETES_PORT_443_TCP_PROTO", "KUBERNETES_SERVICE_HOST",
                    "KUBERNETES_SERVICE_PORT", "KUBERNETES_SERVICE_PORT_HTTPS",
                ),
                "PLACE",
            )
        },
    ),
    Difference(
        "mode of the output folder",
        "the kubelet gives the job's folder the mode of the claim's own",
        {"who the job is": {"output mode": "drwxrwxrwx"}},
    ),
    Difference(
        "what runs",
        "a folder's command on one machine, an image with its entry point on a cluster",
        {
            "the whole record": {
                "created/image": "IMAGE", "ended/image": "IMAGE",
                "created/command": [], "ended/command": [],
            },
            "a plan starts nothing": {"keys": ["executor", "manifest", "name", "warnings"]},
        },
    ),
    Difference(
        "more than there is",
        "a cluster may grow, so a job that fits no node waits and says so; a machine does not",
        {
            "more than there is": {
                "refused": _LOCAL_ONLY,
                "waits": ["pending", "Unschedulable"],
                "stopped": {
                    "state": "stopped", "reason": None, "message": "stopped before it started",
                    "exit code": None, "attempt": 1, "started": False, "finished": True,
                    "duration": False,
                },
            }
        },
    ),
)  # fmt: skip


def told_of(scenario: str) -> dict[str, Any]:
    """What a cluster is told to show otherwise in a scenario: path in its trace to value."""
    return {
        path: value
        for difference in DIFFERENCES
        for path, value in difference.seen.get(scenario, {}).items()
    }
