"""One process that serves: from settings to a running service, and back to nothing.

Nothing is built at import. uvicorn's own signal
handling is replaced, because it ends the process by the signal again before anything of ours
is tidied up, and because followers must be told before connections are waited for.
"""

import asyncio
import fcntl
import gc
import json
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import uvicorn
import uvloop

import model_training
from model_training.api.access import access_of
from model_training.api.app import create_app
from model_training.api.composition import build_service
from model_training.api.deadlines import DeadlineProtocol
from model_training.api.tls import renew, tls_context
from model_training.errors import DataFolderInUse, SettingsError
from model_training.folders import DataFolder
from model_training.jobs import ACTIVE
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.settings import Settings, load_settings

logger = logging.getLogger(__name__)

SHUTDOWN_S = 1  # seconds; followers are told at once, so only requests in work are waited for
NAMES_SHOWN = 5  # jobs named when the server goes and they stay


def run(*, config: Path | None = None, **explicit: object) -> int:
    """Serve until SIGTERM or Ctrl+C; the exit code.

    Raises:
        SettingsError: a setting is wrong, or the service would be open beyond this machine.
        DataFolderInUse: another server works on the data folder.
    """
    settings = load_settings(config=config, **explicit)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else a line a request to a registry
    data = DataFolder(Path(settings.data).absolute())
    _make_private(data.root)
    with _only_server(data), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, data))


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise SettingsError(
            f"data is {str(folder)!r}, which cannot be used: {error.strerror}. "
            "Choose a folder that you may write with --data."
        ) from error


@contextmanager
def _only_server(data: DataFolder) -> Generator[None]:
    """Hold the data folder: two servers would start every job twice."""
    descriptor = os.open(data.server_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DataFolderInUse(_who_serves(data)) from None
    try:
        yield
    finally:
        data.server.unlink(missing_ok=True)
        os.close(descriptor)


def _who_serves(data: DataFolder) -> str:
    who = "another server"
    with suppress(OSError, ValueError, KeyError, TypeError):
        first = json.loads(data.server.read_text())
        who = f"the server at {first['url']} (process {first['pid']})"
    return (
        f"The data folder {data.root} is in use by {who}. "
        "Use that one, stop it first, or choose another folder with --data."
    )


class _Server(uvicorn.Server):
    """uvicorn, saying when it listens and telling followers when it goes."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        stopping: asyncio.Event,
        data: DataFolder,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._stopping = stopping
        self._data = data

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._leave)
        yield
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def _leave(self) -> None:
        self._stopping.set()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        url = _url(self._listener, is_tls=self.config.is_ssl)
        self._announce(url)
        print(f"Model Training API ready at {url}", flush=True)  # noqa: T201 - people and scripts wait for this line

    def _announce(self, url: str) -> None:
        """Write down where we listen, for the command and the client."""
        text = json.dumps({"url": url, "pid": os.getpid(), "version": model_training.__version__})
        fresh = self._data.server.with_suffix(".new")
        try:
            fresh.write_text(text + "\n")
            fresh.replace(self._data.server)
        except OSError as error:
            # On a full disk people need the service most: to see what there is, and to delete.
            for path in (fresh, self._data.server):  # what is there may be of a server that died
                path.unlink(missing_ok=True)
            logger.warning(
                "%s cannot be written (%s), so the command does not find this server by itself; "
                "tell it: MODEL_TRAINING_URL=%s",
                *(self._data.server, error.strerror, url),
            )


def _url(listener: socket.socket, *, is_tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _listen(settings: Settings) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM
    )[0]
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Choose another with --port, or 0 for a free one."
        ) from error
    listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
    return listener


async def _serve(settings: Settings, data: DataFolder) -> int:
    _raise_descriptor_limit()
    stopping = asyncio.Event()
    listener = _listen(settings)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        ledger = await Ledger.open(data.ledger)
        stack.push_async_callback(ledger.close)
        access = await access_of(settings, data, stack)
        service = await build_service(settings, data, ledger, access.guard, stack)
        app = create_app(
            service,
            access.authenticator,
            settings=settings,
            stopping=stopping,
            access_ready=access.is_ready,
        )
        protocol = partial(
            DeadlineProtocol,
            header_timeout=settings.header_timeout,
            body_timeout=settings.body_timeout,
        )
        config = uvicorn.Config(
            app,
            http=protocol,  # pyright: ignore[reportArgumentType] - called, never subclassed
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            ws="none",
            proxy_headers=False,  # nobody is trusted to say who the client is
            ssl_context_factory=_tls(settings, stack),
            timeout_keep_alive=settings.keep_alive,  # pyright: ignore[reportArgumentType] - a delay
            timeout_graceful_shutdown=SHUTDOWN_S,
            backlog=4096,
        )
        _spare_the_collector()
        await _Server(config, listener, stopping, data).serve(sockets=[listener])
        await _say_what_stays(ledger)
    return 0


def _tls(
    settings: Settings, stack: AsyncExitStack
) -> Callable[[uvicorn.Config, Callable[[], ssl.SSLContext]], ssl.SSLContext] | None:
    """What uvicorn makes its TLS of, renewed until ``stack`` is left; None for plain HTTP."""
    certificate = settings.tls_certificate
    if certificate is None:
        return None
    context = tls_context(certificate, settings.tls_key)
    renewal = asyncio.create_task(renew(context, certificate, settings.tls_key), name="renewal")
    stack.callback(renewal.cancel)
    return lambda _config, _default: context


def _spare_the_collector() -> None:
    """Take what was imported and built from the garbage collector's rounds: it stays for ever.

    A full round took 55 ms of CPU, in which nobody is answered; without it 3 ms.
    """
    gc.collect()
    gc.freeze()


def _raise_descriptor_limit() -> None:
    """A follower holds a descriptor, and many systems begin with 1,024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logger.debug("descriptors: %d, was %d", hard, soft)


async def _say_what_stays(ledger: Ledger) -> None:
    rows = await ledger.page(JobFilter(states=ACTIVE), before=None, limit=NAMES_SHOWN + 1)
    names = [job.name for _, job in rows]
    if not names:
        return
    more = " and more" if len(names) > NAMES_SHOWN else ""
    logger.info(
        "The server stops; jobs go on without it: %s%s. Start it again to follow or stop them.",
        ", ".join(names[:NAMES_SHOWN]),
        more,
    )
