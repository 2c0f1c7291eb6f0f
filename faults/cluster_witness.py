"""The witness of a cluster: asks kubectl too what there is. Imports nothing of the product.

Beside what ``witness.py`` reads there is ``cluster``: ``kubectl``, ``kubeconfig``, ``namespace``,
and from when to when (monotonic seconds) something was not there: ``away``, a part of the cluster
or the network to it; ``dead``, the service; ``cuts``, containerd, which passes output on.
``node_breaks`` says that it is parts of the node that break.
With ``recovered`` (monotonic seconds) it only judges whether the service is in step with the
cluster again in time, and prints how long that took as ``in_step_s``.

What Kubernetes itself makes unavoidable, counted as ``unavoidable`` and no violation:

- ``stopped, end of its log lost``: a stop deletes the pod, and its log with it; who cannot be
  asked meanwhile has nothing left to ask. The log says so with a gap. What the job had printed
  some seconds before the stop was asked for is no part of that, unless something was away or dead
  then: in that case what it had printed some seconds before that began.
- ``stopped, exit code lost``: the same, of the pod's last status.
- ``torn by containerd``: it keeps in memory what it has read of a line; a restart loses that,
  and nobody is told. One hole a restart, of at most 16 KiB, in a log.
- ``ended while containerd was away``: it has lost the exit code when it comes back, and makes up
  none; what the job printed since is lost with it, and what it printed until then is not.
- ``given up by the node while it started``: a container whose start its kubelet or containerd did
  not live to see is a failed one, and a pod that is never restarted fails with it.
- ``CR dropped``: ``\\r\\n`` is ``\\n`` in the node's log.
"""

import json
import subprocess
import sys
import time
from collections import Counter

from witness import Witness, alike, sit, without

STEP_S = 10.0  # seconds after the recovery until every state is right
LEFT_S = 60.0  # seconds until a stopped job's pod has left, whose end is told before
ENDING_S = 1.0  # at most, from a job's last note to its end, and to containerd's knowing of it
COPIED_S = 3.0  # at most, from when a job prints something until the service and followers have it
CAUGHT_UP_S = 10.0  # the same, of what was printed while something was away, once it is back
ALIVE_S = 5.0  # the same, while the service was dead, once it answers again
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
        blind = [(began, ended + CAUGHT_UP_S) for began, ended in self.place["away"]]
        blind += [(began, ended + ALIVE_S) for began, ended in self.place["dead"]]
        self.blind = sorted(blind, key=lambda span: span[1], reverse=True)

    def judge(self) -> None:
        if "recovered" in self.case:
            self.judge_step()
            return
        self.judge_gone()
        self.cluster = self.settled()
        super().judge()

    def judge_gone(self) -> None:
        """What is not listed has left nothing: while its pod is there, a job is not gone."""
        names = {job["name"] for job in json.loads(self.get("/training-jobs")[1])}
        cluster = Cluster(self.place)
        strangers = (cluster.jobs.keys() | cluster.pods.keys()) - names
        self.expect(not strangers, f"in the cluster, and not listed: {sorted(strangers)}")

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
                is_gone = told == "gone" and promised["kind"] == "delete"
                if is_gone:  # what is there now was there when that was told
                    there = after.count(name)
                    early = f"{name} is told as gone, with {there[0]} Jobs and {there[1]} pods"
                    self.expect(there == (0, 0), early)
                if is_gone or told in right:
                    del behind[name]
            before = after
        self.notes["in_step_s"] = round(time.monotonic() - recovered, 2)
        self.checks += len(words)
        for name in behind:
            said = words.get(name, f"{name}: nothing was told")
            self.violations.append(f"{said}, {STEP_S:g} s after the recovery")

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
        if end == MADE_UP and self.cut_of_end(job["name"]) is not None:
            self.unavoidable["ended while containerd was away"] += 1
            return True
        if end == NOT_STARTED and not starts and self.place["node_breaks"]:
            self.unavoidable["given up by the node while it started"] += 1
            return True
        return super().is_true_end(promised, job, starts, left)

    def judge_job(self, promised: dict, job: dict) -> None:
        before = len(self.violations)
        super().judge_job(promised, job)
        for _, _, began in self.truth_notes(job["name"])[:1]:  # what it notes is by our clock, too
            early = f"{job['name']}: started at {began}, asked for at {promised['sent']}"
            self.expect(promised["sent"] <= float(began), early)
        if len(self.violations) > before:
            times = {"wrote last": self.wrote_last(job["name"]), "was asked": promised["asked_at"]}
            absences = {key: self.place[key] for key in ("away", "dead", "cuts")}
            self.violations[-1] += f"; {times}, {absences}"

    def wrote_last(self, name: str) -> float | None:
        """When the job made its last note; None if it never started."""
        notes = self.truth_notes(name)
        return float(notes[-1][-1]) if notes else None

    def cut_of_end(self, name: str) -> float | None:
        """When the runtime went, if the last that the job wrote down fell into its absence."""
        wrote = self.wrote_last(name)
        if wrote is None:
            return None
        cuts = self.place["cuts"]
        return next((began for began, ended in cuts if began - ENDING_S <= wrote <= ended), None)

    def printed(self, promised: dict, pieces: int) -> bytes:
        whole = super().printed(promised, pieces)
        self.unavoidable["CR dropped"] += whole.count(b"\r\n")
        return on_node(whole)

    def may_have_gaps(self, promised: dict) -> bool:
        return promised["stop"] or promised["delete"]

    def is_whole(
        self, promised: dict, log: bytes, wanted: bytes, missing: list[tuple[int, int]]
    ) -> bool:
        if not missing:
            began = self.cut_of_end(promised["name"])
            until = float("inf") if began is None else began - COPIED_S
            return self.has_enough(promised, log, wanted, until)
        # A gap of one position stands for as many bytes as there may be.
        if not self.may_have_gaps(promised) or missing != [(len(log), len(log) + 1)]:
            return False
        is_fair = self.has_enough(promised, log, wanted, self.copied_until(promised))
        self.unavoidable["stopped, end of its log lost"] += is_fair
        return is_fair

    def is_cut_off(
        self, promised: dict, log: bytes, whole: bytes, missing: list[tuple[int, int]]
    ) -> bool:
        if promised["delete"]:  # what a follower got: the log has gone with the job
            return self.has_enough(promised, log, whole, self.copied_until(promised))
        return self.is_whole(promised, log, whole, missing)

    def copied_until(self, promised: dict) -> float:
        """Until when all that was printed must have been copied, as the end was asked for."""
        moment = promised["asked_at"]
        for began, ended in self.blind:  # the latest end first: one absence may begin in another
            if began <= moment <= ended:
                moment = began
        return moment - COPIED_S

    def has_enough(self, promised: dict, log: bytes, whole: bytes, until: float) -> bool:
        """Whether it is what was printed first, and all that was printed until then."""
        rest = self.torn(log, whole)
        reached = len(log) + len(whole) - len(rest)
        due = on_node(super().printed(promised, self.said(promised["name"], until)))
        return rest.startswith(log) and reached >= len(due)

    def said(self, name: str, until: float) -> int:
        """How many pieces the job had printed by then."""
        notes = [note for note in self.truth_notes(name) if note[0] == "said"]
        return max((int(said) for _, said, when in notes if float(when) <= until), default=0)

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


def on_node(printed: bytes) -> bytes:
    """What the node has of it."""
    return printed.replace(b"\r\n", b"\n")


if __name__ == "__main__":
    sit(ClusterWitness, sys.argv[1])
