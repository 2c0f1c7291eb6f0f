"""The witness: judges a service by what it answers and by what its jobs themselves wrote down.

``witness.py FILE`` reads one JSON object: ``url``, ``token``, ``truth`` (the folder into which
the jobs of ``job.py`` write what they really did) and ``jobs``, what a campaign asked for and was
promised. Prints ``{"checks": N, "violations": [...]}``. It knows HTTP, the process table and the
files of its own jobs, nothing of the product.

A job of the file: ``seed``, ``pieces``, ``on_term``, ``exit_code`` as it was told; ``name`` (null
if the POST was never answered); ``sent`` and ``answered`` (when, on one clock); ``stop`` and
``delete`` (asked for), ``asked_at`` (when first, on that clock);
``reason`` (the end is known to be a failure with this reason);
``has_gaps`` (its log may lack bytes); ``followed`` (what a follower got: ``file``, where missing
bytes are NUL, ``end``, ``gaps``, ``faults``).
"""

import http.client
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import proctable
from job import words

TERM_CODE = 143  # died of SIGTERM


class Witness:
    """One sitting."""

    def __init__(self, case: dict) -> None:
        self.case = case
        address = urlsplit(case["url"])
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        self.checks = 0
        self.violations: list[str] = []
        self.notes: dict[str, object] = {}  # what it says beside its verdict
        self.gaps: list[tuple[int, int]] = []  # of the last answer

    def expect(self, holds: bool, words: str) -> bool:
        self.checks += 1
        if not holds:
            self.violations.append(words)
        return holds

    def get(self, path: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.case['token']}"}
        self.connection.request("GET", path, headers=headers)
        answer = self.connection.getresponse()
        self.gaps = gaps(answer.getheader("Model-Training-Gaps", ""))
        return answer.status, answer.read()

    def judge(self) -> None:
        listed = json.loads(self.get("/training-jobs")[1])
        self.judge_list(listed)
        by_seed = {job["parameters"].get("seed"): job for job in listed}
        for promised in self.case["jobs"]:
            found = by_seed.get(promised["seed"])
            if promised["delete"]:
                self.judge_deleted(promised, found)
            elif found is not None:
                self.judge_job(promised, found)
            else:
                self.expect(promised["name"] is None, f"lost: {promised}")
                self.judge_starts(promised)

    def judge_list(self, listed: list[dict]) -> None:
        names = [job["name"] for job in listed]
        self.expect(len(set(names)) == len(names), "a name is listed twice")
        seeds = [job["parameters"].get("seed") for job in listed]
        self.expect(len(set(seeds)) == len(seeds), f"one request made two jobs: {sorted(seeds)}")
        known = {job["seed"]: job for job in self.case["jobs"]}
        for job in listed:
            promised = known.get(job["parameters"].get("seed"))
            self.expect(promised is not None, f"nobody asked for {job['name']}")
            if promised and promised["name"]:
                self.expect(promised["name"] == job["name"], f"{job['name']}: not {promised}")
        self.judge_order([known[seed] for seed in seeds if seed in known])

    def judge_order(self, newest_first: list[dict]) -> None:
        """Who was answered before another was sent stands behind it."""
        latest_sent = float("inf")
        for job in newest_first:
            if job["answered"] is None:
                continue
            # Everybody above was sent later than this was answered, or at the same time with it.
            self.expect(job["sent"] <= latest_sent, f"listed out of order: {job['name']}")
            latest_sent = min(latest_sent, job["answered"])

    def truth(self, name: str | None) -> tuple[int, tuple[int, int, str] | None]:
        """How often a job started, and code, pieces said and why of its exit, if it says so."""
        notes = self.truth_notes(name)
        starts = sum(note[0] == "start" for note in notes)
        exits = [note for note in notes if note[0] == "exit"]
        if not exits:
            return starts, None
        _, code, said, why, _ = exits[-1]
        return starts, (int(code), int(said), why)

    def truth_notes(self, name: str | None) -> list[list[str]]:
        """The words of each note that a job made; none of one that never started."""
        path = Path(self.case["truth"]) / (name or "-")
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def judge_starts(self, promised: dict) -> None:
        starts, _ = self.truth(promised["name"])
        self.expect(starts <= 1, f"{promised['name']} was started {starts} times")

    def judge_deleted(self, promised: dict, found: dict | None) -> None:
        name = promised["name"]
        self.expect(found is None, f"deleted and still listed: {found}")
        for path in (f"/training-jobs/{name}", f"/training-jobs/{name}/status"):
            self.expect(self.get(path)[0] == 404, f"deleted and still there: {path}")
        self.judge_starts(promised)
        self.judge_left(promised)
        followed = promised.get("followed")
        if followed:
            whole = self.printed(promised, promised["pieces"])
            told_gaps = joined([(gap["from"], gap["to"]) for gap in followed["gaps"]])
            got = without(Path(followed["file"]).read_bytes(), told_gaps)
            may = not told_gaps or self.may_have_gaps(promised)
            self.expect(may, f"{name}: a follower was told of gaps {told_gaps}")
            other = f"{name}: a follower got other bytes, {compared(got, whole)}"
            self.expect(self.is_cut_off(promised, got, whole, told_gaps), other)
            self.expect(not followed["faults"], f"{name}: {followed['faults']}")

    def judge_left(self, promised: dict) -> None:
        """Nothing runs of a job that has ended."""
        name = promised["name"]
        left = proctable.alive(name)
        self.expect(not left, f"{name}: processes {left} are alive")

    def judge_job(self, promised: dict, job: dict) -> None:
        name = job["name"]
        promised = promised | {"name": name}
        self.judge_starts(promised)
        status, body = self.get(f"/training-jobs/{name}/status")
        self.expect(status == 200 and json.loads(body) == job, f"{name}: status is not the list's")
        starts, left = self.truth(name)
        how = f"{name}: {job['state']}, {job['reason']}, {job['exit_code']}; truth {starts} {left}"
        self.expect(self.is_true_end(promised, job, starts, left), how)
        self.judge_left(promised)
        self.judge_log(promised, left)

    def is_true_end(
        self, promised: dict, job: dict, starts: int, left: tuple[int, int, str] | None
    ) -> bool:
        end = (job["state"], job["reason"], job["exit_code"])
        if promised.get("reason"):
            return end == ("failed", promised["reason"], None)
        if left is None:  # it did not live to write its end
            code = job["exit_code"]
            codes = {TERM_CODE} if starts else {TERM_CODE, None}
            return bool(promised["stop"]) and job["state"] == "stopped" and code in codes
        code, _, why = left
        if promised["stop"] and end == ("stopped", None, code):
            return True
        truth = ("failed", "Error", code) if code else ("succeeded", None, 0)
        return why == "done" and code == promised["exit_code"] and end == truth

    def judge_log(self, promised: dict, left: tuple[int, int, str] | None) -> None:
        name = promised["name"]
        status, log = self.get(f"/training-jobs/{name}")
        missing = self.gaps
        self.expect(status == 200, f"{name}: log answers {status}")
        self.expect(not missing or self.may_have_gaps(promised), f"{name}: has gaps {missing}")
        wanted = self.printed(promised, promised["pieces"] if left is None else left[1])
        is_right = self.is_cut_off if left is None else self.is_whole
        other = f"{compared(log, wanted)}, {missing} are missing, {left}"
        holds = is_right(promised, log, wanted, missing)
        self.expect(holds, f"{name}: log is not what was printed; {other}")
        if promised.get("followed"):
            self.judge_follower(promised, log, missing)

    def may_have_gaps(self, promised: dict) -> bool:
        """Whether bytes may be missing where the log says so."""
        return "has_gaps" in promised

    def printed(self, promised: dict, pieces: int) -> bytes:
        """What the log holds when the job has said so many pieces."""
        return words(promised["seed"], pieces)

    def is_whole(
        self, promised: dict, log: bytes, wanted: bytes, missing: list[tuple[int, int]]
    ) -> bool:
        """Whether the log is what was printed, but for what it says to be missing."""
        del promised  # all jobs of one machine are judged alike
        return log == without(wanted, missing)

    def is_cut_off(
        self, promised: dict, log: bytes, whole: bytes, missing: list[tuple[int, int]]
    ) -> bool:
        """The same of a job that did not live to say how far it got, or of its follower."""
        del promised, missing  # how much of it there must be is not known here
        return whole.startswith(log)

    def judge_follower(self, promised: dict, log: bytes, missing: list[tuple[int, int]]) -> None:
        name, followed = promised["name"], promised["followed"]
        self.expect(not followed["faults"], f"{name}: {followed['faults']}")
        got = without(Path(followed["file"]).read_bytes(), missing)
        self.expect(got == log, f"{name}: a follower got {len(got)} bytes, the log has {len(log)}")
        told_gaps = joined([(gap["from"], gap["to"]) for gap in followed["gaps"]])
        self.expect(told_gaps == missing, f"{name}: a follower was told of gaps {told_gaps}")
        end = followed["end"] or {}
        job = json.loads(self.get(f"/training-jobs/{name}/status")[1])
        told = [end.get(key) for key in ("state", "reason", "exit_code")]
        recorded = [job[key] for key in ("state", "reason", "exit_code")]
        self.expect(told == recorded, f"{name}: the end told {told}, the record says {recorded}")


def gaps(header: str) -> list[tuple[int, int]]:
    """Byte ranges that are missing, each from its start to before its end."""
    ranges = [part.strip().partition("-") for part in header.split(",") if part.strip()]
    return [(int(start), int(end)) for start, _, end in ranges]


def joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Who follows a gap that grows is told of it piece by piece."""
    whole: list[tuple[int, int]] = []
    for start, end in ranges:
        goes_on = bool(whole) and whole[-1][1] == start
        whole.append((whole.pop()[0] if goes_on else start, end))
    return whole


def without(data: bytes, missing: list[tuple[int, int]]) -> bytes:
    """The bytes that are not missing."""
    for start, end in reversed(missing):
        data = data[:start] + data[end:]
    return data


def alike(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    pairs = zip(one, other, strict=False)
    differs = (number for number, (a, b) in enumerate(pairs) if a != b)
    return next(differs, min(len(one), len(other)))


def compared(got: bytes, wanted: bytes) -> str:
    """Both in a few words, and what they say from where they differ."""
    same = alike(got, wanted)
    heads = f"{got[same : same + 20]!r} instead of {wanted[same : same + 20]!r}"
    return f"{len(got)} bytes instead of {len(wanted)}; from {same} on {heads}"


def sit(kind: type[Witness], path: str) -> None:
    """Judge what a file says, and print the verdict."""
    witness = kind(json.loads(Path(path).read_text()))
    try:
        witness.judge()
    except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
        # No judgement is no acquittal.
        witness.violations.append(f"the witness could not judge: {error!r}")
    verdict = {"checks": witness.checks, "violations": witness.violations}
    print(json.dumps(verdict | witness.notes))


if __name__ == "__main__":
    sit(Witness, sys.argv[1])
