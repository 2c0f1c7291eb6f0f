"""The shipped command against the shipped server, both as processes: what a user lives through."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_training import Client, errors
from tests.api.lab import write_pipeline

DECLARED = """
name = "declared"
command = ["python3", "main.py"]
[parameters.epochs]
type = "integer"
maximum = 10
"""
# Prints until the file GATE is there, and then the rest.
GATED = """
import os, pathlib, time
for n in range(300): print("before", n)
print("half a line", end="", flush=True)
while not pathlib.Path(os.environ["GATE"]).exists(): time.sleep(0.02)
for n in range(300): print("after", n)
"""
GATED_LOG = (
    "".join(f"before {n}\n" for n in range(300))
    + "half a line"
    + "".join(f"after {n}\n" for n in range(300))
)


class Service:
    """A server process on a data folder of its own, and the command beside it."""

    def __init__(self, root: Path, slots: int) -> None:
        self.root = root
        self.data = root / "data"
        self.slots = slots
        self.commands: list[subprocess.Popen[bytes]] = []
        write_pipeline(root / "pipelines")
        write_pipeline(root / "pipelines", "declared", DECLARED)
        self.start()

    def start(self) -> None:
        options = ["--port", "0", "--slots", str(self.slots), "--pipelines", "pipelines"]
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "model_training", "serve", "--data", "data", *options],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=self.root,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert b"ready at" in line, (self.root / "server.log").read_text()

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "MODEL_TRAINING_DATA": str(self.data)}
        process = subprocess.Popen(
            [sys.executable, "-m", "model_training", *arguments], env=environment, cwd=self.root,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self.commands.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        return outcome(self.begin(*arguments))

    def client(self) -> Client:
        return Client(data=self.data)

    def create(self, code: str, **parameters: str) -> str:
        with self.client() as client:
            return client.create("print", {"CODE": code, **parameters}).name

    def close(self) -> None:
        """Leave no job and no process behind, also after a test that failed."""
        for process in self.commands:
            with process:
                process.kill()
        with self.client() as client:
            for job in client.list(state="active"):
                client.delete(job.name, wait=20)
        self.end()


def outcome(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), slots=4)
    yield service
    service.close()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, slots=1)
    yield service
    service.close()


def test_run_shows_the_log_and_gives_the_exit_code_of_the_job(service: Service):
    code, out, err = service.run("run", "print", "-p", "CODE=print('hello'); raise SystemExit(7)")
    assert (code, out) == (7, "hello\n")
    assert "failed (Error" in err


def test_a_created_job_can_be_waited_for_seen_and_listed(service: Service):
    code, out, _ = service.run("create", "print", "-p", "CODE=print(1)")
    name = out.strip()
    assert code == 0
    assert service.run("wait", name)[:2] == (0, "succeeded\n")
    assert "state\tsucceeded\n" in service.run("status", name)[1]
    assert service.run("logs", name)[1] == "1\n"
    listed = service.run("list", "--pipeline", "print", "--state", "completed")[1]
    assert name in [line.split("\t")[0] for line in listed.splitlines()]
    assert name not in service.run("list", "--state", "failed")[1]
    assert service.run("delete", name, "--wait", "10")[:2] == (0, "deleted\n")
    assert service.run("status", name)[0] == 3


def test_json_is_what_the_api_answers(service: Service):
    name = service.create("print(2)")
    service.run("wait", name)
    with service.client() as client:
        http = client._http
        headers = {"authorization": f"Bearer {(service.data / 'token').read_text().strip()}"}
        for arguments, path in [
            (("status", name), f"/training-jobs/{name}/status"),
            (("list",), "/training-jobs"),
            (("outputs", name), f"/training-jobs/{name}/outputs"),
            (("pipeline", "list"), "/pipelines"),
            (("pipeline", "show", "declared"), "/pipelines/declared"),
        ]:
            answer = http.get(f"{client.address}{path}", headers=headers)
            assert json.loads(service.run(*arguments, "--json")[1]) == answer.json()


def test_paging_gives_every_job_once_and_a_limit_holds(service: Service):
    names = [service.create("") for _ in range(3)]
    with service.client() as client:
        newest = [job.name for job in client.list(limit=2)]
        assert newest == names[:0:-1]
        assert {job.name for job in client.list()} >= set(names)


def listed(service: Service) -> list[str]:
    """The names alone: a job of another test may end at any moment."""
    return [line.split()[0] for line in service.run("list")[1].splitlines()]


def test_a_wrong_parameter_is_named_and_starts_nothing(service: Service):
    before = listed(service)
    code, out, err = service.run("create", "declared", "-p", "epochs=11", "-p", "epoch=3")
    assert (code, out) == (6, "")
    assert "body.epochs" in err
    assert "body.epoch:" in err
    assert listed(service) == before


def test_an_unknown_pipeline_is_answered_with_the_nearest_name(service: Service):
    code, _, err = service.run("create", "digts")
    assert code == 3
    assert "digits" in err


def test_a_dry_run_shows_the_plan_and_starts_nothing(service: Service):
    before = listed(service)
    code, out, _ = service.run("create", "print", "--dry-run", "-p", "CODE=1")
    assert code == 0
    assert "main.py" in str(json.loads(out))
    assert listed(service) == before


def test_the_same_key_is_the_same_job_and_for_another_request_a_conflict(service: Service):
    keyed = ("create", "print", "--idempotency-key", "mine", "-p")
    assert service.run(*keyed, "A=1")[1] == service.run(*keyed, "A=1")[1]
    code, _, err = service.run(*keyed, "A=2")
    assert code == 6
    assert "another --idempotency-key" in err


def test_parameters_come_from_a_file_with_single_ones_over_it(service: Service):
    (service.root / "p.toml").write_text("CODE = \"import os; print(os.environ['B'])\"\nB = 1\n")
    assert service.run("run", "print", "--params", "p.toml", "-p", "B=2")[1] == "2\n"


def test_outputs_are_fetched_whole(service: Service):
    code = "open(os.environ['MODEL_TRAINING_OUTPUT'] + '/m', 'wb').write(b'x' * 10**6)"
    name = service.create(code)
    service.run("wait", name)
    with service.client() as client:
        assert [(o.path, o.size) for o in client.outputs(name)] == [("m", 10**6)]
        assert client.download(name, "m", service.root / "m").stat().st_size == 10**6
        with pytest.raises(errors.OutputNotFound):
            client.download(name, "none", service.root / "none")


def test_waiting_too_long_ends_with_124_and_stopping_with_103(service: Service):
    name = service.create("import time; time.sleep(60)")
    code, _, err = service.run("wait", name, "--timeout", "0.2")
    assert code == 124
    assert f"{name} is still" in err
    assert service.run("stop", name)[0] == 0
    assert service.run("wait", name)[:2] == (103, "stopped\n")


def test_ctrl_c_leaves_the_job_running(service: Service):
    process = service.begin(
        "run", "print", "-p", "CODE=import time; print(1, flush=True); time.sleep(60)"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    process.send_signal(signal.SIGINT)
    code, _, err = outcome(process)
    assert code == 130
    name = re.search(r"logs -f (\S+)", err)
    assert name
    assert "state\trunning\n" in service.run("status", name[1])[1]
    service.run("delete", name[1], "--wait", "10")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_following_survives_a_restart_of_the_server(own_service: Service, number: int):
    gate = own_service.root / "gate"
    name = own_service.create(GATED, GATE=str(gate))
    process = own_service.begin("logs", "-f", name)
    assert process.stdout is not None
    first = process.stdout.readline()
    own_service.end(number)
    own_service.start()
    gate.touch()
    code, out, err = outcome(process)
    assert (code, first.decode() + out) == (0, GATED_LOG)
    assert "connection lost" in err
    assert f"{name} succeeded" in err


def test_following_before_the_start_says_what_it_waits_for(own_service: Service):
    gate = own_service.root / "gate"
    first = own_service.create(GATED, GATE=str(gate))
    second = own_service.create("print('second')")
    process = own_service.begin("logs", "-f", second)
    assert process.stderr is not None
    assert "waiting: " in process.stderr.readline().decode()
    gate.touch()
    code, out, _ = outcome(process)
    assert (code, out) == (0, "second\n")
    assert own_service.run("logs", first)[1] == GATED_LOG


def test_the_doctor_finds_the_server(service: Service):
    code, out, _ = service.run("doctor", "--json")
    found = {each["what"]: each for each in json.loads(out)}
    assert code == 0
    assert found["server"]["level"] == "ok"


def test_the_demo_trains_a_model_and_leaves_no_server(tmp_path: Path):
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "model_training", "demo", "--data", "data"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "accuracy" in line][-1]
    match = re.fullmatch(r"test accuracy: (\d+\.\d) %", told)
    assert match
    assert float(match[1]) >= 95
    model = re.search(r"^model: (.*model\.json)$", done.stdout, re.MULTILINE)
    assert model
    assert "weights" in model[1] or Path(model[1]).stat().st_size > 1000
    assert not (tmp_path / "data" / "server.json").exists()
