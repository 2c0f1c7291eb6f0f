"""A job at hand: what ``create`` gives, so that one may write ``create(...).wait()``."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from model_training.client.results import LogOptions, Output
from model_training.jobs import TrainingJob

if TYPE_CHECKING:
    from model_training.client.clients import AsyncClient, Client


class Job:
    """One training job and the client to ask about it. ``record`` is the job as last seen."""

    def __init__(self, client: "Client", record: TrainingJob) -> None:
        self._client = client
        self.record = record

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.record.state}>"

    @property
    def name(self) -> str:
        """The job's name."""
        return self.record.name

    def status(self) -> TrainingJob:
        """The job as it stands."""
        self.record = self._client.status(self.name)
        return self.record

    def wait(self, *, timeout: float | None = None, check: bool = False) -> TrainingJob:
        """Wait until it has ended; ``check`` raises ``JobFailed`` unless it succeeded."""
        self.record = self._client.wait(self.name, timeout=timeout, check=check)
        return self.record

    def logs(self, **options: Unpack[LogOptions]) -> Iterator[bytes]:
        """The log as it stands."""
        return self._client.logs(self.name, **options)

    def follow(self, **options: Unpack[LogOptions]) -> Iterator[bytes]:
        """The log as it is printed, until the job has ended."""
        return self._client.follow(self.name, **options)

    def stop(self) -> TrainingJob:
        """Ask it to end."""
        self.record = self._client.stop(self.name)
        return self.record

    def delete(self, *, wait: float | None = None) -> TrainingJob | None:
        """Stop and remove it; None once nothing of it is left."""
        return self._client.delete(self.name, wait=wait)

    def outputs(self) -> tuple[Output, ...]:
        """What it keeps so far."""
        return self._client.outputs(self.name)

    def download(self, path: str, to: Path | str) -> Path:
        """Fetch one output into the file ``to``, or under it if it is a folder."""
        return self._client.download(self.name, path, to)


class AsyncJob:
    """One training job and the client to ask about it. ``record`` is the job as last seen."""

    def __init__(self, client: "AsyncClient", record: TrainingJob) -> None:
        self._client = client
        self.record = record

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.record.state}>"

    @property
    def name(self) -> str:
        """The job's name."""
        return self.record.name

    async def status(self) -> TrainingJob:
        """The job as it stands."""
        self.record = await self._client.status(self.name)
        return self.record

    async def wait(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 the blocking twin's name
        check: bool = False,
    ) -> TrainingJob:
        """Wait until it has ended; ``check`` raises ``JobFailed`` unless it succeeded."""
        self.record = await self._client.wait(self.name, timeout=timeout, check=check)
        return self.record

    def logs(self, **options: Unpack[LogOptions]) -> AsyncGenerator[bytes]:
        """The log as it stands."""
        return self._client.logs(self.name, **options)

    def follow(self, **options: Unpack[LogOptions]) -> AsyncGenerator[bytes]:
        """The log as it is printed, until the job has ended."""
        return self._client.follow(self.name, **options)

    async def stop(self) -> TrainingJob:
        """Ask it to end."""
        self.record = await self._client.stop(self.name)
        return self.record

    async def delete(self, *, wait: float | None = None) -> TrainingJob | None:
        """Stop and remove it; None once nothing of it is left."""
        return await self._client.delete(self.name, wait=wait)

    async def outputs(self) -> tuple[Output, ...]:
        """What it keeps so far."""
        return await self._client.outputs(self.name)

    async def download(self, path: str, to: Path | str) -> Path:
        """Fetch one output into the file ``to``, or under it if it is a folder."""
        return await self._client.download(self.name, path, to)
