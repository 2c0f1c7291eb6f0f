"""The witness of a cluster: asks kubectl too what there is. Imports nothing of the product.

Beside what ``witness.py`` reads there is ``cluster``: ``kubectl``, ``kubeconfig``, ``namespace``,
and ``cuts`` (from when to when, by the clock, containerd was stopped, which passes output on);
``node_breaks`` says that it is parts of the node that break.
With ``recovered`` (monotonic seconds) it only judges whether the service is in step with the
cluster again in time, and prints how long that took as ``in_step_s``.

What Kubernetes itself makes unavoidable, counted as ``unavoidable`` and no violation:

- ``stopped, end of its log lost``: a stop deletes the pod, and its log with it; who cannot be
  asked meanwhile has nothing left to ask. The log says so with a gap.
- ``stopped, exit code lost``: the same, of the pod's last status.
- ``torn by containerd``: it keeps in memory what it has read of a line; a restart loses that,
  and nobody is told. One hole a restart, of at most 16 KiB, in a log.
- ``ended while containerd was away``: it has lost the exit code when it comes back, and makes up
  none; what the job printed since is lost with it.
- ``given up by the node while it started``: a container whose start its kubelet or containerd did
  not live to see is a failed one, and a pod that is never restarted fails with it.
- ``CR dropped``: ``\\r\\n`` is ``\\n`` in the node's log.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from witness import Witness, alike, sit, without

STEP_S = 10.0  # seconds after the recovery until every state is right
LEFT_S = 60.0  # seconds until a stopped job's pod has left, whose end is told before
ENDING_S = 1.0  # at most, from a job's last note to its end, and to containerd's knowing of it
TORN_BYTES = 16 * 1024  # of containerd's buffer
NOT_STARTED = ("failed", "StartFailed", None)
MADE_UP = ("failed", "Error", None)
ENDS = {"succeeded", "failed", "stopped"}
ASKED = {
    "stop": {"stopping", "stopped"},
    "stop_waiting": {"stopping", "stopped"},
    "delete": {"deleting", "gone"},
}


class Cluster:
    """Jobs and pods of the namespace, at one moment, by the name of the job."""

    def __init__(self, place: dict) -> None:
        argv = [
            *(place["kubectl"], f"--kubeconfig={place['kubeconfig']}", "-n", place["namespace"]),
            *("get", "jobs,pods", "-o", "json"),
        ]
        done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=30, check=True)
        self.jobs: dict[str, dict] = {}
        self.pods: dict[str, list[dict]] = {}
        for item in json.loads(done.stdout)["items"]:
            metadata = item["metadata"]
            if item["kind"] == "Job":
                self.jobs[metadata["name"]] = item
            else:
                name = metadata.get("labels", {}).get("batch.kubernetes.io/job-name", "-")
                self.pods.setdefault(name, []).append(item)

    def count(self, name: str) -> tuple[int, int]:
        """Jobs and pods of this name."""
        return int(name in self.jobs), len(self.pods.get(name, []))

    def states(self, promised: dict) -> set[str]:
        """The states that are right, as this moment was."""
        name = promised["name"]
        asked = ASKED.get(promised["kind"], set())
        if name not in self.jobs:
            return asked | ENDS if asked else set()
        if "deletionTimestamp" in self.jobs[name]["metadata"]:
            return asked
        for pod in self.pods.get(name, []):
            for container in pod["status"].get("containerStatuses", []):
                if ended := container["state"].get("terminated"):
                    return asked | {"failed" if ended["exitCode"] else "succeeded"}
                if "running" in container["state"]:
                    return asked | {"running"}
        return asked | {"pending"}


class ClusterWitness(Witness):
    """One sitting."""

    def __init__(self, case: dict) -> None:
        super().__init__(case)
        self.place = case["cluster"]
        self.unavoidable = Counter[str]()
        self.notes["unavoidable"] = self.unavoidable

    def judge(self) -> None:
        if "recovered" in self.case:
            self.judge_step()
            return
        self.cluster = self.settled()
        super().judge()

    def settled(self) -> Cluster:
        """The cluster, once nothing in it is about to go."""
        deadline = time.monotonic() + LEFT_S
        while True:
            cluster = Cluster(self.place)
            items = [
                *cluster.jobs.values(),
                *(pod for pods in cluster.pods.values() for pod in pods),
            ]
            going = any("deletionTimestamp" in item["metadata"] for item in items)
            if not going or time.monotonic() > deadline:
                return cluster
            time.sleep(0.2)

    def judge_step(self) -> None:
        """Each job is once told as the cluster has it; those that change are looked at again."""
        behind = {job["name"]: job for job in self.case["jobs"] if job["name"]}
        recovered = self.case["recovered"]
        words: dict[str, str] = {}
        before = Cluster(self.place)
        while behind and time.monotonic() < recovered + STEP_S:
            listed = {job["name"]: job for job in json.loads(self.get("/training-jobs")[1])}
            after = Cluster(self.place)
            for name, promised in list(behind.items()):
                told = listed.get(name, {"state": "gone"})["state"]
                right = before.states(promised) | after.states(promised)
                words[name] = f"{name} ({promised['kind']}) is told as {told}, not {sorted(right)}"
                if told in right:
                    del behind[name]
            before = after
        self.notes["in_step_s"] = round(time.monotonic() - recovered, 2)
        self.checks += len(words)
        for name in behind:
            said = words.get(name, f"{name}: nothing was told")
            self.violations.append(f"{said}, {STEP_S:g} s after the recovery")

    def judge_list(self, listed: list[dict]) -> None:
        super().judge_list(listed)
        names = {job["name"] for job in listed}
        strangers = (self.cluster.jobs.keys() | self.cluster.pods.keys()) - names
        self.expect(not strangers, f"in the cluster, and not listed: {sorted(strangers)}")

    def judge_left(self, promised: dict) -> None:
        super().judge_left(promised)
        name, there = promised["name"], self.cluster.count(promised["name"])
        if promised["delete"]:
            right = {(0, 0)}
        elif promised["stop"]:
            right = {(0, 0), (1, 1)}  # the latter ended before it was stopped
        else:
            right = {(1, 1)}
        self.expect(there in right, f"{name}: {there[0]} Jobs and {there[1]} pods are there")

    def is_true_end(
        self, promised: dict, job: dict, starts: int, left: tuple[int, int, str] | None
    ) -> bool:
        end = (job["state"], job["reason"], job["exit_code"])
        if promised["stop"] and starts and end == ("stopped", None, None):
            self.unavoidable["stopped, exit code lost"] += 1
            return True
        if end == MADE_UP and self.ended_in_cut(job["name"]):
            self.unavoidable["ended while containerd was away"] += 1
            return True
        if end == NOT_STARTED and not starts and self.place["node_breaks"]:
            self.unavoidable["given up by the node while it started"] += 1
            return True
        return super().is_true_end(promised, job, starts, left)

    def judge_job(self, promised: dict, job: dict) -> None:
        before = len(self.violations)
        super().judge_job(promised, job)
        if len(self.violations) > before and self.place["cuts"]:
            wrote = (Path(self.case["truth"]) / job["name"]).stat().st_mtime
            near = [(round(wrote - a, 2), round(wrote - b, 2)) for a, b in self.place["cuts"]]
            self.violations[-1] += f"; it wrote last so long after begin and end of cuts: {near}"

    def ended_in_cut(self, name: str) -> bool:
        """Whether the last that the job wrote down fell into the runtime's absence."""
        wrote = (Path(self.case["truth"]) / name).stat().st_mtime
        return any(began - ENDING_S <= wrote <= ended for began, ended in self.place["cuts"])

    def printed(self, promised: dict, pieces: int) -> bytes:
        whole = super().printed(promised, pieces)
        self.unavoidable["CR dropped"] += whole.count(b"\r\n")
        return whole.replace(b"\r\n", b"\n")

    def may_have_gaps(self, promised: dict) -> bool:
        return promised["stop"] or promised["delete"]

    def is_whole(
        self, promised: dict, log: bytes, wanted: bytes, missing: list[tuple[int, int]]
    ) -> bool:
        if not missing:
            end_is_lost = self.ended_in_cut(promised["name"])
            return log == self.torn(log, wanted) or (end_is_lost and self.is_begin(log, wanted))
        # A gap of one position stands for as many bytes as there may be.
        start, end = missing[-1]
        at_the_end = len(missing) == 1 and end - start == 1 and start == len(log)
        self.unavoidable["stopped, end of its log lost"] += at_the_end
        return at_the_end and self.is_begin(log, wanted)

    def is_begin(self, log: bytes, whole: bytes) -> bool:
        return self.torn(log, whole).startswith(log)

    def torn(self, log: bytes, wanted: bytes) -> bytes:
        """What is wanted, but for what restarts of the runtime explain: a hole each."""
        for _ in self.place["cuts"]:
            same = alike(log, wanted)
            if same == len(log) or same == len(wanted):
                break
            # It goes on where it matches for longest: a line may repeat itself.
            places = range(same + 1, min(same + TORN_BYTES, len(wanted)) + 1)
            likely = [place for place in places if wanted.startswith(log[same : same + 64], place)]
            if not likely:
                break
            found = max(likely, key=lambda place: alike(log[same:], wanted[place:]))
            self.unavoidable["torn by containerd"] += 1
            wanted = without(wanted, [(same, found)])
        return wanted


if __name__ == "__main__":
    sit(ClusterWitness, sys.argv[1])
