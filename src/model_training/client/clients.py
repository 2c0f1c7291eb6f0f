"""The client: ``Client`` blocks, ``AsyncClient`` awaits; both know the same methods.

Both only perform the operations of ``operations.py``; whoever changes one changes the other. No
method prints, none reads a whole log into memory, and none can start a job twice: a create
carries an Idempotency-Key and may therefore be sent again after a lost connection.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack, cast

import httpx2

from model_training.client import following, operations
from model_training.client.address import AddressFinder
from model_training.client.downloads import PartialFile, target_of
from model_training.client.events import LogBytes, LogEvent
from model_training.client.exchange import Operation, emitting_its_result
from model_training.client.jobs import AsyncJob, Job
from model_training.client.renewing import renewing
from model_training.client.results import (
    JobFilters,
    JobOptions,
    LogOptions,
    Output,
    PipelineInfo,
)
from model_training.client.wire import AsyncWire, BlockingWire
from model_training.jobs import JSONObject, TrainingJob

T = TypeVar("T")

TIMEOUT_S = 10.0  # for a connection, and for silence within an answer
PATIENCE_S = 10.0  # of trying again before a first answer; a restart of the server takes 1-2 s


class Client:
    """A client of one server; its methods block.

    Args:
        url: of the server; else ``MODEL_TRAINING_URL``, else what a server on this machine wrote
            into its data folder.
        token: to show the server; else what is in ``token_file``, else what ``credentials.py``
            finds: variables, ``client.toml``, a login, the data folder.
        data: the data folder; else ``MODEL_TRAINING_DATA``, else the default one.
        token_file: a file with the token, read for each request.
        timeout: seconds for a connection, and for silence within an answer.
        patience: seconds to go on trying while the server does not answer or is busy.

    Every method raises what the server answered as an error of ``model_training.errors``
    (``JobNotFound``, ``InvalidRequest``, ``Forbidden``, ...), and ``ServerUnreachable`` when
    there was no answer within ``patience``.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        data: Path | str | None = None,
        *,
        token_file: Path | str | None = None,
        timeout: float = TIMEOUT_S,
        patience: float = PATIENCE_S,
    ) -> None:
        self._finder = AddressFinder(url, token, data, token_file)
        self._finder.given()  # a mistake in it is told here
        self._patience_s = patience
        # Proxy variables are for servers elsewhere: the local token must not pass through one.
        self._http = httpx2.Client(timeout=timeout, trust_env=not self._finder.is_local)

    @property
    def address(self) -> str | None:
        """Where the server is now; None while none has told it."""
        return self._finder.address()

    def create(
        self,
        pipeline: str,
        parameters: Mapping[str, object] | None = None,
        /,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Start a training job: ``create("digits", {"epochs": 20}, timeout="2h")``.

        Training parameters go into the mapping, job options are named arguments; so neither
        can ever take the name of the other.
        """
        operation = operations.create(pipeline, parameters, options, self._patience_s)
        return Job(self, self._run(operation))

    def plan(
        self,
        pipeline: str,
        parameters: Mapping[str, object] | None = None,
        /,
        **options: Unpack[JobOptions],
    ) -> JSONObject:
        """What ``create`` would start; nothing is started."""
        return self._run(operations.plan(pipeline, parameters, options, self._patience_s))

    def list(
        self, *, limit: int | None = None, **filters: Unpack[JobFilters]
    ) -> Iterator[TrainingJob]:
        """Jobs, newest first; at most ``limit``, else all of them. Pages are fetched as needed."""
        operation = operations.list_jobs(filters, limit, self._patience_s)
        for item in self._items(operation):
            yield cast("TrainingJob", item)

    def status(self, name: str) -> TrainingJob:
        """The job as it stands."""
        return self._run(operations.status(name, self._patience_s))

    def logs(self, name: str, **options: Unpack[LogOptions]) -> Iterator[bytes]:
        """The log as it stands, byte for byte, in pieces.

        Raises:
            ServerUnreachable: also when it was cut in the middle; what came is then a part.
        """
        for item in self._items(operations.log(name, options, self._patience_s)):
            yield cast("bytes", item)

    def follow(self, name: str, **options: Unpack[LogOptions]) -> Iterator[bytes]:
        """The log as it is printed, byte for byte, in pieces, until the job has ended.

        Waits for a job that has not started. Goes on by itself after a lost connection or a
        restart of the server, without a lost or doubled byte.

        Raises:
            ServerUnreachable: the log cannot be followed to its end. It never just stops.
        """
        for event in self.events(name, **options):
            if isinstance(event, LogBytes):
                yield event.data

    def events(self, name: str, **options: Unpack[LogOptions]) -> Iterator[LogEvent]:
        """Like ``follow``, with changes of state, gaps and lost connections; ``Ended`` is last."""
        for item in self._items(following.follow(name, options, self._patience_s)):
            yield cast("LogEvent", item)

    def wait(self, name: str, *, timeout: float | None = None, check: bool = False) -> TrainingJob:
        """Wait until the job has ended, and give it as it ended, well or badly.

        Args:
            name: the job's.
            timeout: seconds; None waits as long as it takes.
            check: raise ``JobFailed``, with the last lines of its log, unless it succeeded.

        Raises:
            WaitTimedOut: it has not ended in that time; it goes on.
            ServerUnreachable: the server did not answer within it (without: for 300 s).
        """
        operation = operations.wait(name, timeout, check=check, patience_s=self._patience_s)
        return self._run(operation)

    def stop(self, name: str) -> TrainingJob:
        """Ask the job to end; record, log and outputs stay. Again, or too late, is no error."""
        return self._run(operations.stop(name, self._patience_s))

    def delete(self, name: str, *, wait: float | None = None) -> TrainingJob | None:
        """Stop the job and remove it with its log and outputs.

        Args:
            name: the job's.
            wait: seconds (at most 300) for which the answer may wait until it is gone.

        Returns:
            None once nothing of it is left, else the job as it stands (``deleting``).
        """
        return self._run(operations.delete(name, wait, self._patience_s))

    def outputs(self, name: str) -> tuple[Output, ...]:
        """What the job keeps so far."""
        return self._run(operations.outputs(name, self._patience_s))

    def download(self, name: str, path: str, to: Path | str) -> Path:
        """Fetch one output into the file ``to``, or under it if it is a folder.

        The file appears when it is whole and fits the digest that the server told.
        """
        with PartialFile(target_of(path, to)) as file:
            for item in self._items(operations.download(name, path, self._patience_s)):
                file.receive(item)
            return file.keep()

    def pipelines(self) -> tuple[PipelineInfo, ...]:
        """Known pipelines; a broken one carries its problems."""
        return self._run(operations.pipelines(self._patience_s))

    def pipeline(self, name: str) -> PipelineInfo:
        """One pipeline, with the declaration of its parameters."""
        return self._run(operations.pipeline(name, self._patience_s))

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, operation: Operation[T]) -> T:
        *_, result = self._items(emitting_its_result(operation))
        return cast("T", result)

    def _items(self, operation: Operation[None]) -> Iterator[object]:
        return BlockingWire(self._http, self._finder).perform_all(renewing(operation))


class AsyncClient:
    """A client of one server, for asyncio.

    Args:
        url: of the server; else ``MODEL_TRAINING_URL``, else what a server on this machine wrote
            into its data folder.
        token: to show the server; else what is in ``token_file``, else what ``credentials.py``
            finds: variables, ``client.toml``, a login, the data folder.
        data: the data folder; else ``MODEL_TRAINING_DATA``, else the default one.
        token_file: a file with the token, read for each request.
        timeout: seconds for a connection, and for silence within an answer.
        patience: seconds to go on trying while the server does not answer or is busy.

    Every method raises what the server answered as an error of ``model_training.errors``
    (``JobNotFound``, ``InvalidRequest``, ``Forbidden``, ...), and ``ServerUnreachable`` when
    there was no answer within ``patience``.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        data: Path | str | None = None,
        *,
        token_file: Path | str | None = None,
        timeout: float = TIMEOUT_S,
        patience: float = PATIENCE_S,
    ) -> None:
        self._finder = AddressFinder(url, token, data, token_file)
        self._finder.given()  # a mistake in it is told here
        self._patience_s = patience
        # Proxy variables are for servers elsewhere: the local token must not pass through one.
        self._http = httpx2.AsyncClient(timeout=timeout, trust_env=not self._finder.is_local)

    @property
    def address(self) -> str | None:
        """Where the server is now; None while none has told it."""
        return self._finder.address()

    async def create(
        self,
        pipeline: str,
        parameters: Mapping[str, object] | None = None,
        /,
        **options: Unpack[JobOptions],
    ) -> AsyncJob:
        """Start a training job: ``create("digits", {"epochs": 20}, timeout="2h")``.

        Training parameters go into the mapping, job options are named arguments; so neither
        can ever take the name of the other.
        """
        operation = operations.create(pipeline, parameters, options, self._patience_s)
        return AsyncJob(self, await self._run(operation))

    async def plan(
        self,
        pipeline: str,
        parameters: Mapping[str, object] | None = None,
        /,
        **options: Unpack[JobOptions],
    ) -> JSONObject:
        """What ``create`` would start; nothing is started."""
        return await self._run(operations.plan(pipeline, parameters, options, self._patience_s))

    async def list(
        self, *, limit: int | None = None, **filters: Unpack[JobFilters]
    ) -> AsyncGenerator[TrainingJob]:
        """Jobs, newest first; at most ``limit``, else all of them. Pages are fetched as needed."""
        operation = operations.list_jobs(filters, limit, self._patience_s)
        async with aclosing(self._items(operation)) as items:
            async for item in items:
                yield cast("TrainingJob", item)

    async def status(self, name: str) -> TrainingJob:
        """The job as it stands."""
        return await self._run(operations.status(name, self._patience_s))

    async def logs(self, name: str, **options: Unpack[LogOptions]) -> AsyncGenerator[bytes]:
        """The log as it stands, byte for byte, in pieces.

        Raises:
            ServerUnreachable: also when it was cut in the middle; what came is then a part.
        """
        async with aclosing(self._items(operations.log(name, options, self._patience_s))) as items:
            async for item in items:
                yield cast("bytes", item)

    async def follow(self, name: str, **options: Unpack[LogOptions]) -> AsyncGenerator[bytes]:
        """The log as it is printed, byte for byte, in pieces, until the job has ended.

        Waits for a job that has not started. Goes on by itself after a lost connection or a
        restart of the server, without a lost or doubled byte.

        Raises:
            ServerUnreachable: the log cannot be followed to its end. It never just stops.
        """
        async with aclosing(self.events(name, **options)) as events:
            async for event in events:
                if isinstance(event, LogBytes):
                    yield event.data

    async def events(self, name: str, **options: Unpack[LogOptions]) -> AsyncGenerator[LogEvent]:
        """Like ``follow``, with changes of state, gaps and lost connections; ``Ended`` is last."""
        async with aclosing(
            self._items(following.follow(name, options, self._patience_s))
        ) as items:
            async for item in items:
                yield cast("LogEvent", item)

    async def wait(
        self,
        name: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 the blocking twin's name
        check: bool = False,
    ) -> TrainingJob:
        """Wait until the job has ended, and give it as it ended, well or badly.

        Args:
            name: the job's.
            timeout: seconds; None waits as long as it takes.
            check: raise ``JobFailed``, with the last lines of its log, unless it succeeded.

        Raises:
            WaitTimedOut: it has not ended in that time; it goes on.
            ServerUnreachable: the server did not answer within it (without: for 300 s).
        """
        operation = operations.wait(name, timeout, check=check, patience_s=self._patience_s)
        return await self._run(operation)

    async def stop(self, name: str) -> TrainingJob:
        """Ask the job to end; record, log and outputs stay. Again, or too late, is no error."""
        return await self._run(operations.stop(name, self._patience_s))

    async def delete(self, name: str, *, wait: float | None = None) -> TrainingJob | None:
        """Stop the job and remove it with its log and outputs.

        Args:
            name: the job's.
            wait: seconds (at most 300) for which the answer may wait until it is gone.

        Returns:
            None once nothing of it is left, else the job as it stands (``deleting``).
        """
        return await self._run(operations.delete(name, wait, self._patience_s))

    async def outputs(self, name: str) -> tuple[Output, ...]:
        """What the job keeps so far."""
        return await self._run(operations.outputs(name, self._patience_s))

    async def download(self, name: str, path: str, to: Path | str) -> Path:
        """Fetch one output into the file ``to``, or under it if it is a folder.

        The file appears when it is whole and fits the digest that the server told.
        """
        with PartialFile(target_of(path, to)) as file:
            async with aclosing(
                self._items(operations.download(name, path, self._patience_s))
            ) as items:
                async for item in items:
                    file.receive(item)
            return file.keep()

    async def pipelines(self) -> tuple[PipelineInfo, ...]:
        """Known pipelines; a broken one carries its problems."""
        return await self._run(operations.pipelines(self._patience_s))

    async def pipeline(self, name: str) -> PipelineInfo:
        """One pipeline, with the declaration of its parameters."""
        return await self._run(operations.pipeline(name, self._patience_s))

    async def close(self) -> None:
        """Close idle connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, operation: Operation[T]) -> T:
        *_, result = [item async for item in self._items(emitting_its_result(operation))]
        return cast("T", result)

    def _items(self, operation: Operation[None]) -> AsyncGenerator[object]:
        return AsyncWire(self._http, self._finder).perform_all(renewing(operation))
