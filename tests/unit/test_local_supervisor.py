"""The supervisor alone: no executor, no server, no cgroup, no devices unless a test hands them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_training.executors.local import processes, records, variables
from model_training.folders import DataFolder
from tests.unit.local_bench import accept, begin, begun, end_of, log_of, run, sh, spec, stop

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def alive_with(mark: str) -> list[int]:
    return [pid for pid in processes.all_processes() if _is_live_and_carries(pid, mark)]


def _is_live_and_carries(pid: int, mark: str) -> bool:
    line = processes.stat(pid)
    return processes.carries_mark(pid, mark) and line is not None and line.state not in "ZX"


def test_the_environment_of_a_job_is_made_from_scratch(
    data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "s1")
    monkeypatch.setenv("TAKEN_OVER", "s2")
    monkeypatch.setenv("PIP_INDEX_URL", "s3")
    wanted = sh(
        "env; echo -- supervisor; tr '\\0' '\\n' < /proc/$PPID/environ",
        environment={"FIXED": "1"},
        pass_env=("TAKEN_OVER", "NOT_SET"),
        parameters={"rate": 0.5},
    )
    _, log = run(data, wanted)
    mine, supervisors = log.decode().split("-- supervisor\n")
    assert "s1" not in supervisors
    seen = dict(line.split("=", 1) for line in mine.splitlines())
    assert seen["FIXED"] == "1"
    assert seen["TAKEN_OVER"] == "s2"
    assert seen["rate"] == "0.5"
    assert seen["PATH"] == os.environ["PATH"]
    assert not {"SECRET_OF_THE_SERVER", "PIP_INDEX_URL", "NOT_SET", "CUDA_VISIBLE_DEVICES"} & set(
        seen
    )
    files = [path for path in data.job(wanted.name).path.rglob("*") if path.is_file()]
    on_disk = b"".join(path.read_bytes() for path in files if path.parent.name != "1")
    assert b"s2" not in on_disk, "values taken over never touch the disk"


def test_what_installers_need_is_for_them_and_not_for_the_job() -> None:
    own = {"PATH": "/bin", "PIP_INDEX_URL": "x", "HTTPS_PROXY": "y", "TOKEN": "z"}
    given = variables.for_supervisor(own, ["TOKEN"], installs=True)
    assert given == own
    assert set(variables.for_supervisor(own, [], installs=False)) == {"PATH"}
    assert set(variables.for_installer(given, "j")) == {
        "PATH",
        "PIP_INDEX_URL",
        "HTTPS_PROXY",
        "MODEL_TRAINING_JOB",
    }
    assert set(variables.for_job(given, [], {}, {})) == {"PATH", "PYTHONUNBUFFERED"}
    assert variables.for_job(given, ["TOKEN"], {"TOKEN": "fixed"}, {})["TOKEN"] == "z"
    assert variables.for_job(given, ["GONE"], {"GONE": "fixed"}, {})["GONE"] == "fixed"


def test_devices_reach_the_job(data: DataFolder) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES/$OMP_NUM_THREADS; grep Cpus_allowed_list /proc/self/status"
    cpu = min(os.sched_getaffinity(0))
    _, log = run(data, sh(script), gpus=[2, 5], cpus=[cpu])
    assert log.split() == [b"2,5/1", b"Cpus_allowed_list:", str(cpu).encode()]


def test_a_job_without_gpus_sees_none_where_the_machine_has_some(data: DataFolder) -> None:
    _, log = run(data, sh("echo ${CUDA_VISIBLE_DEVICES-unset}/$OMP_NUM_THREADS"), gpus=[])
    assert log == b"/\n"


def test_a_job_keeps_the_umask_of_the_server_and_its_output_stays_private(data: DataFolder) -> None:
    before = os.umask(0o022)
    try:
        wanted = sh("umask; stat -c %a $MODEL_TRAINING_OUTPUT")
        _, log = run(data, wanted)
    finally:
        os.umask(before)
    assert log == b"0022\n700\n"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("no-such-program",), "command not found: no-such-program"),
        (("./no-such-script",), "command not found: ./no-such-script"),
        (("./plain.txt",), "not executable: ./plain.txt; run chmod +x on it"),
        (("./nonsense",), "not executable: ./nonsense is no program"),
        (("./lost",), "the interpreter that the #! line of ./lost names is missing"),
        (("sh", "-c", "x" * 200_000), "the arguments and the environment of sh are too large"),
    ],
)
def test_a_command_that_cannot_start_is_told_from_one_that_fails(
    data: DataFolder, tmp_path: Path, command: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "plain.txt").write_text("words")
    (tmp_path / "nonsense").write_bytes(b"\x00\x01\x02")
    (tmp_path / "lost").write_text("#!/no/such/interpreter\n")
    for name in ("nonsense", "lost"):
        (tmp_path / name).chmod(0o755)
    record, _ = run(data, spec(*command, folder=tmp_path))
    assert (record["state"], record["reason"]) == ("failed", "StartFailed")
    assert record["message"].startswith(reason)
    assert record["started_at"] is None


def test_a_program_that_exits_127_did_start(data: DataFolder) -> None:
    record, _ = run(data, sh("exit 127"))
    assert (record["reason"], record["exit_code"]) == ("Error", 127)


# Each begins its helpers, then says so, then waits. Those with a clean environment carry no mark:
# only as descendants can they be found.
TREES = {
    "double fork": "( env -i sh -c 'sleep 100 & sleep 100' & ) ; {begun}; sleep 100",
    "own session": "env -i setsid sh -c 'trap : TERM; sleep 100; sleep 100' & {begun}; sleep 100",
    "nohup": "nohup sleep 100 & {begun}; sleep 100",
    "deaf": 'trap "" TERM; {begun}; sleep 100; sleep 100; sleep 100',
    "stopped": "env -i sleep 100 & kill -STOP $!; {begun}; kill -STOP $$",
    "fork storm": "env -i {python} -S -c '{storm}' {note} & sleep 100",
}
STORM = """
import os, sys, time
for _ in range(7):
    os.fork()
open(sys.argv[1], "w").write("begun")
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork():
        os._exit(0)  # each lives for a moment only: its number is old when anybody looks
    os.setsid()
    time.sleep(0.002)
"""


@pytest.mark.parametrize("tree", TREES)
async def test_a_stop_leaves_nothing_of_the_tree(
    data: DataFolder, tmp_path: Path, tree: str
) -> None:
    note = tmp_path / "note"
    words = {"begun": f"echo begun > {note}", "note": note, "python": sys.executable}
    words["storm"] = STORM
    job = accept(data, spec("bash", "-c", TREES[tree].format(**words)))
    pid = begin(job)
    await begun(note)
    tree_before = processes.descendants(pid)
    asked = time.monotonic()
    stop(job, pid)
    record = end_of(job, pid)
    took = time.monotonic() - asked
    assert record["state"] == "stopped"
    assert took < job.spec.grace_s + 2
    assert alive_with(job.spec.name) == []
    states = {line.state for line in (processes.stat(member.pid) for member in tree_before) if line}
    assert states <= {"Z", "X"}
    assert not [pid for pid in processes.all_processes() if str(note).encode() in _argv(pid)]


def _argv(pid: int) -> bytes:
    try:
        return (processes.PROC / str(pid) / "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


async def test_a_job_that_was_suspended_hears_the_stop(data: DataFolder, tmp_path: Path) -> None:
    script = f"trap 'exit 5' TERM; echo begun > {tmp_path}/note; kill -STOP $$"
    job = accept(data, sh(script, grace_s=60.0))
    pid = begin(job)
    await begun(tmp_path / "note")
    stop(job, pid)
    assert end_of(job, pid)["exit_code"] == 5


async def test_a_stop_between_the_start_of_the_supervisor_and_of_the_job_prevents_it(
    data: DataFolder, tmp_path: Path
) -> None:
    job = accept(data, sh(f"touch {tmp_path}/ran"))
    records.write(job.folder.stop, {"at": "now"})
    record = end_of(job, begin(job))
    assert (record["state"], record["message"]) == ("stopped", "stopped before it started")
    assert not (tmp_path / "ran").exists()


async def test_a_sigterm_from_the_very_first_moment_is_not_lost(data: DataFolder) -> None:
    job = accept(data, sh("sleep 100"))
    pid = begin(job)
    stop(job, pid)
    assert end_of(job, pid)["state"] == "stopped"


async def test_a_job_that_finishes_its_work_when_asked_to_stop_says_so(
    data: DataFolder, tmp_path: Path
) -> None:
    script = (
        f"trap 'echo saved; exit 0' TERM; echo x > {tmp_path}/note; while :; do sleep 0.05; done"
    )
    job = accept(data, sh(script))
    pid = begin(job)
    await begun(tmp_path / "note")
    stop(job, pid)
    record = end_of(job, pid)
    assert (record["state"], record["exit_code"]) == ("stopped", 0)
    assert record["message"] == "finished during stop"
    assert log_of(data, job.spec.name).endswith(b"saved\n")


def test_a_supervisor_never_starts_what_somebody_began(data: DataFolder, tmp_path: Path) -> None:
    job = accept(data, sh(f"touch {tmp_path}/ran"))
    records.write(job.folder.run, {"phase": "starting"})
    os.waitpid(begin(job), 0)
    assert not (tmp_path / "ran").exists()
    assert not job.folder.exit.exists()


def test_a_lock_that_is_held_starts_no_second_supervisor(data: DataFolder) -> None:
    from model_training.executors.local import watching

    job = accept(data, sh("true"))
    held = records.lock(job.folder.lock)
    assert held is not None
    assert watching.start_supervisor(job, {}) is None
    os.close(held)


def test_a_sigkill_from_elsewhere_hints_at_memory(data: DataFolder) -> None:
    record, _ = run(data, sh("kill -9 $$"))
    assert (record["reason"], record["exit_code"]) == ("Signal", 137)
    assert record["message"] == "ended by SIGKILL; perhaps the machine ran out of memory"


def test_the_supervisor_stays_small_and_needs_the_standard_library_only(
    data: DataFolder, tmp_path: Path
) -> None:
    wanted = sh("grep VmRSS /proc/$PPID/status; grep VmHWM /proc/$PPID/status")
    _, log = run(data, wanted)
    assert max(int(word) for word in log.split() if word.isdigit()) < 15 << 10, "kB"
    code = (
        f"import sys; sys.path.append({str(Path(records.__file__).parents[3])!r});"
        "from model_training.executors.local import environments, supervisor;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    out = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True)
    outside = set(out.stdout.decode().split()) - sys.stdlib_module_names - {"model_training"}
    assert outside <= {"__main__"}


def test_fifty_megabytes_a_second_are_captured_with_every_byte(data: DataFolder) -> None:
    size = 100_000_000
    script = f"head -c {size} /dev/zero | tr '\\0' 'x'"
    record, log = run(data, sh(script))
    assert len(log) == size
    assert log.count(b"x") == size
    assert size / record["duration_s"] > 50_000_000


def test_children_are_found_with_and_without_the_kernels_lists() -> None:
    child = subprocess.Popen(["sleep", "100"])
    try:
        assert child.pid in processes.children(os.getpid())
        assert set(processes.children_by_scan(os.getpid())) >= {child.pid}
    finally:
        child.kill()
        child.wait()


def test_a_pidfd_is_only_had_for_the_very_process() -> None:
    child = subprocess.Popen(["sleep", "100"])
    who = processes.identity(child.pid)
    assert who is not None
    assert processes.open_pidfd(who._replace(start_ticks=who.start_ticks + 1)) is None
    assert processes.open_pidfd(who._replace(boot_id="another")) is None
    pidfd = processes.open_pidfd(who)
    assert pidfd is not None
    processes.send(pidfd, signal.SIGKILL)
    child.wait()
    processes.send(pidfd, signal.SIGKILL)  # to the dead: no error, and nobody else is hit
    os.close(pidfd)
    assert processes.open_pidfd(who) is None


def test_a_job_out_of_reach_is_seen_through_to_its_end(data: DataFolder) -> None:
    """As one that goes on as root by sudo is for everybody else."""
    if os.getuid():
        pytest.skip("only root can become somebody else without a password")
    go = data.root.parent / "go"
    os.mkfifo(go)
    as_nobody = "exec setpriv --reuid=65534 --clear-groups sh -c 'echo up; read x <&3; exit 7'"
    job = accept(data, sh(f"exec 3<> {go}; {as_nobody}", grace_s=0.1))
    code = (
        "import os, sys; from pathlib import Path;"
        "from model_training.executors.local import records, supervisor;"
        "os.dup2(records.lock(Path(sys.argv[1]) / 'lock'), 3); supervisor.main(sys.argv[1])"
    )
    may_not_kill = ("setpriv", "--bounding-set=-kill")
    with subprocess.Popen([*may_not_kill, sys.executable, "-c", code, str(job.folder.path)]) as it:
        begun_s = time.monotonic()
        while log_of(data, job.spec.name) != b"up\n" and time.monotonic() < begun_s + 10:
            processes.pause(0.01)
        stop(job, it.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            it.wait(0.5)  # the grace is over, and it cannot be ended
        go.write_text("go\n")
        it.wait(10)
    end = records.read(job.folder.exit)
    assert end is not None
    assert (end["state"], end["exit_code"]) == ("stopped", 7)


def test_what_cannot_be_killed_is_tried_less_and_less_often() -> None:
    now = time.monotonic()
    assert processes.pass_pause(now, 0.01) == 0.01
    assert 0.1 < processes.pass_pause(now - 2, 0.01) < 1
    assert processes.pass_pause(now - 3600, 0.01) == 1
