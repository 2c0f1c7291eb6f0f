"""Puts one executor under the contract suite: ``--executor``, ``local`` by default.

Only this file and the benches name executors.
"""

import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import pytest

from model_training.executors.base import Executor
from model_training.executors.local.executor import LocalExecutor
from model_training.folders import DataFolder
from model_training.jobs import JobSpec, Reason, Resources
from model_training.names import job_name
from tests.contract.lab import Bench, Case, Lab
from tests.contract.slow_package import write_slow_package

PIPELINE = "contract"


def local_executor(root: str, slots: str, gpus: str) -> Executor:
    """As ``server_process.py`` calls it: with words."""
    indices = [int(index) for index in gpus.split(",") if index]
    return LocalExecutor(DataFolder(Path(root)), slots=int(slots), gpus=indices)


class LocalBench:
    """Processes on this machine."""

    cannot: Mapping[Case, str] = MappingProxyType({})
    late_s = 0.0
    python = (sys.executable, "-S")  # without site: starts in half the time

    def __init__(self, tmp: Path) -> None:
        self.data = DataFolder(tmp / "data")
        self.shared = tmp / "shared"
        self.shared.mkdir()
        enforced = not self._new(1, ()).cannot_enforce(Resources(memory=64 << 20))
        # Without a memory limit of its own the kernel's killer is all there is, and its SIGKILL
        # cannot be told from any other.
        self.out_of_memory = str(Reason.OUT_OF_MEMORY if enforced else Reason.SIGNAL)

    def _new(self, slots: int, gpus: Sequence[int]) -> Executor:
        return LocalExecutor(self.data, slots=slots, gpus=gpus)

    def executor(self, *, slots: int, gpus: Sequence[int]) -> Executor:
        return self._new(slots, gpus)

    def server(self, *, slots: int, gpus: Sequence[int]) -> tuple[str, ...]:
        words = (str(self.data.root), str(slots), ",".join(map(str, gpus)))
        factory = "tests.contract.conftest:local_executor"
        return (sys.executable, "-m", "tests.contract.server_process", factory, *words)

    def spec(self, argv: Sequence[str], folder: str | None) -> JobSpec:
        job_id = uuid4()
        return JobSpec(
            name=job_name(PIPELINE, job_id),
            id=str(job_id),
            pipeline=PIPELINE,
            namespace="default",
            owner="tester",
            created_at=datetime.now(UTC),
            parameters={},
            request_digest="",
            executor="local",
            command=tuple(argv),
            folder=folder or str(self.shared),
        )

    def log(self, name: str) -> bytes:
        segments = sorted(self.data.job(name).log(1).glob("*.log"))
        return b"".join(segment.read_bytes() for segment in segments)

    def output(self, name: str) -> Path:
        return self.data.job(name).output

    def traces(self) -> list[str]:
        folders = (self.data.open_jobs, self.data.new_jobs, self.data.gone_jobs)
        kept = [*self.data.jobs.glob("[!.]*/*"), *(f for d in folders for f in d.glob("*"))]
        return [str(path.relative_to(self.data.root)) for path in kept]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    """Where a cluster's jobs are; None on one machine."""
    if request.config.getoption("--executor") == "local":
        yield None
        return
    from tests.contract.cluster_bench import ground

    with ground(tmp_path_factory.mktemp("claims") / "outputs") as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, ground: object) -> Bench:
    if ground is None:
        return LocalBench(tmp_path)
    from tests.contract.cluster_bench import ClusterBench

    return ClusterBench(tmp_path, ground)  # pyright: ignore


@pytest.fixture
def open_lab(bench: Bench) -> Callable[..., Lab]:
    """Make a lab with other slots or GPUs: ``async with open_lab(slots=1) as lab``."""

    def make(**options: object) -> Lab:
        return Lab(bench, **options)  # pyright: ignore

    return make


@pytest.fixture(params=[False, True], ids=["left", "killed"])
def killable(request: pytest.FixtureRequest) -> bool:
    """Both ways for a server to end: it leaves, or is killed with its process group."""
    return request.param


@pytest.fixture
def slow_requirements(bench: Bench) -> Callable[[str], str]:
    """Make a requirements file whose environment is being built until ``lab.go(package)``."""

    def make(package: str) -> str:
        return str(write_slow_package(bench.shared, package))

    return make


@pytest.fixture
async def lab(bench: Bench) -> AsyncGenerator[Lab]:
    """An executor at work with four slots."""
    async with Lab(bench) as lab:
        yield lab
