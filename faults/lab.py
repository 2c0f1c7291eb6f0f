"""What every campaign needs: a place, pipelines, promises on record, an end without traces."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import proctable
from following import Followed, follow
from service import Service

HERE = Path(__file__).resolve().parent


class Promise(dict):
    """What was asked for one job, and what the service answered: the witness's input."""


class Lab:
    """One campaign: its folder, its services, its findings."""

    executor = "local"
    witness = "witness.py"
    may_refuse = False
    """a POST may be answered with 503: what the service depends on is broken"""
    patience_s = 60.0
    """until what was asked for is expected to have happened"""
    pieces = 40
    pauses = (0.005, 0.01, 0.02)
    lingers = (0.0,)
    """seconds until a job that runs is stopped, or one that was promised deleted"""

    def __init__(self, name: str, seed: int, place: Path | None = None) -> None:
        self.name = name
        self.seed = seed
        self.random = random.Random(seed)
        self.root = Path(tempfile.mkdtemp(prefix="mt-faults-", dir=place))
        self.truth = self.root / "truth"
        self.truth.mkdir()
        self.pipelines = self.root / "pipelines"
        self.violations: list[str] = []
        self.figures: dict[str, object] = {}
        self.checks = 0
        self.rounds = 0
        self.services: list[Service] = []
        self.at_end = ExitStack()
        self.at_end.callback(self._remove_folder)  # the last of all
        self._seeds = seed * 1_000_000
        self._lock = threading.Lock()
        self._make_pipelines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Whatever happened: no process and no file of ours is left."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self.at_end.callback(self._end_processes)  # the first: others take away what they stand on
        try:
            self.at_end.close()
        except Exception as error:  # noqa: BLE001 - a finding, and all others were tidied up
            self.violation(f"not all is tidied up: {error!r}")

    def _end_processes(self) -> None:
        for service in self.services:
            with suppress(subprocess.TimeoutExpired):
                service.end()
        cgroups = proctable.cgroups_of(str(self.root))
        left = proctable.end_all(str(self.root))
        if left:
            self.violation(f"processes that cannot be ended: {left}")
        if self.violations:
            self._keep_words()
        for cgroup in cgroups:
            with suppress(OSError):
                cgroup.rmdir()

    def _remove_folder(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            self.violation(f"{self.root} cannot be removed")

    def _keep_words(self) -> None:
        """The servers' last words, without which a violation is hard to explain."""
        for service in self.services:
            with suppress(OSError):
                self.figures.setdefault("last words", service.last_words())

    def _make_pipelines(self) -> None:
        for name, script in (("words", "job.py"), ("tree", "tree.py")):
            folder = self.pipelines / name
            folder.mkdir(parents=True)
            (folder / "pipeline.toml").write_text(
                f'name = "{name}"\n'
                f'command = ["{sys.executable}", "-S", "-E", "-u", "{HERE / script}"]\n'
            )

    def service(self, *options: str, data: Path | None = None, **variables: str) -> Service:
        """A service that is not started yet."""
        folder = data or self.root / f"data{len(self.services)}"
        folder.mkdir(exist_ok=True)
        defaults = {"MODEL_TRAINING_CONFIG": ""}
        service = Service(folder, *self.executor_options(), *options, **(defaults | variables))
        service.patience_s = self.patience_s
        self.services.append(service)
        return service

    def executor_options(self) -> list[str]:
        """Where jobs run."""
        return ["--pipelines", str(self.pipelines)]

    def violation(self, words: str) -> None:
        with self._lock:
            self.violations.append(words)
        print(f"{self.name}: VIOLATION {words}", file=sys.stderr, flush=True)

    def expect(self, holds: bool, words: str) -> bool:
        with self._lock:
            self.checks += 1
        if not holds:
            self.violation(words)
        return holds

    def promise(self, **told: object) -> Promise:
        """A job that nobody has asked for yet; ``told`` changes what it will do."""
        with self._lock:
            self._seeds += 1
            seed = self._seeds
        usual: dict[str, object] = {"pieces": 20, "pause": 0.01, "exit_code": 0, "on_term": "die"}
        asked = {"name": None, "sent": None, "answered": None}
        asked |= {"stop": False, "delete": False, "asked_at": None}
        return Promise({"seed": seed} | usual | asked | told)

    def parameters(self, promise: Promise) -> dict[str, object]:
        given = {key: promise[key] for key in ("seed", "pieces", "pause", "exit_code", "on_term")}
        gate = {"gate": promise["gate"]} if "gate" in promise else {}
        return given | gate | {"truth": str(self.truth)}

    def submit(self, service: Service, promise: Promise, query: str = "") -> str:
        """Ask for it, once, with a server that answers."""
        promise["sent"] = time.monotonic()
        promise["name"] = service.create("words", self.parameters(promise), query)
        promise["answered"] = time.monotonic()
        return promise["name"]

    def follow(self, service: Service, promise: Promise) -> Followed:
        """Follow it to its end and note what came."""
        got = follow(service, promise["name"])
        path = self.truth / f"{promise['name']}.followed"
        path.write_bytes(got.data)
        promise["followed"] = {
            "file": str(path),
            "end": got.end,
            "faults": got.faults,
            "gaps": got.gaps,
        }
        return got

    def judge(self, service: Service, promises: list[Promise]) -> None:
        """Let the witness judge all jobs that there are."""
        self.sit(service, promises)

    def judge_step(self, service: Service, promises: list[Promise], recovered: float) -> None:
        """Every state is right soon after a recovery (monotonic seconds)."""

    def look_gone(self, name: str) -> None:
        """Where others keep jobs, nothing is left of one that has just been told as gone."""

    def finish(self, service: Service, promises: list[Promise]) -> None:
        """Judge all jobs, and remove them."""
        self.judge(service, promises)
        self.remove_all(service)

    def sit(self, service: Service, promises: list[Promise], **more: object) -> dict:
        """One sitting of the witness; what it says beside its verdict, which is noted."""
        case = self.root / "case.json"
        token = (service.data / "token").read_text().strip()
        jobs = [dict(promise) for promise in promises]  # callers go on writing into them
        plain = {"url": service.url, "token": token, "truth": str(self.truth), "jobs": jobs}
        case.write_text(json.dumps(plain | more))
        judged = subprocess.run(
            [sys.executable, "-S", "-E", str(HERE / self.witness), str(case)],
            stdout=subprocess.PIPE,
            check=True,
        )
        verdict = json.loads(judged.stdout)
        self.checks += verdict["checks"]
        for words in verdict["violations"]:
            self.violation(words)
        return verdict

    def started(self, name: str, seconds: float = 30.0) -> None:
        """Until the job itself says that it runs."""
        self.until((self.truth / name).exists, f"{name} does not start", seconds)

    def until(self, holds: Callable[[], object], words: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{words} within {seconds:g} s")
            time.sleep(0.01)

    def remove_all(self, service: Service) -> None:
        """Delete every job and see that none is left, in the list, on disk, in memory."""
        names = [job["name"] for job in service.insist("GET", "/training-jobs").json]
        for name in names:
            service.insist("DELETE", f"/training-jobs/{name}")
        for name in names:
            service.wait_gone(name)
        left = [path.name for path in (service.data / "jobs").glob("??/model-training-*")]
        self.expect(not left, f"deleted, but their folders are there: {left}")
        for name in names:
            (self.truth / name).unlink(missing_ok=True)
            (self.truth / f"{name}.followed").unlink(missing_ok=True)

    def remove_ledger(self, service: Service) -> None:
        for path in service.data.glob("ledger.sqlite3*"):
            os.unlink(path)
