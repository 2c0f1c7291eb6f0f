"""Job options: how long a job may run and what it may use, as people write it.

They are query parameters of the POST, because its body belongs to the training parameters, and
the ``[job]`` table of a ``pipeline.toml``. Durations and sizes are read here for the settings,
too. Only ASCII digits count: ``int()`` would read Arabic digits and ``1_000``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeVar

from model_training.errors import Fault

TIMEOUT_RANGE_S: Final = (1.0, 30 * 86_400.0)  # a month: longer training saves checkpoints
GRACE_RANGE_S: Final = (0.0, 3600.0)
CPU_LIMIT: Final = 1024.0  # CPUs; more than any machine in sight
MEMORY_RANGE: Final = (2**20, 2**46)  # bytes; 1 MiB to 64 TiB
GPU_LIMIT: Final = 64  # devices

_NUMBER = r"\d{1,15}(?:\.\d{1,9})?"
_DURATION = re.compile(rf"({_NUMBER})([smhd]?)", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER})([KMGT]i|[kKMGT])?", re.ASCII)
_CPU = re.compile(rf"({_NUMBER})(m?)", re.ASCII)
_WHOLE = re.compile(r"\d{1,15}", re.ASCII)
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES: Final = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What was asked for; None where nothing was."""

    timeout_s: float | None = None
    """seconds from the start of the command"""
    grace_s: float | None = None
    """seconds between SIGTERM and SIGKILL"""
    cpu: float | None = None
    """CPUs"""
    memory: int | None = None
    """bytes"""
    gpu: int | None = None
    """devices"""


def parse_options(
    given: Mapping[str, str], *, path: str = "query"
) -> tuple[JobOptions, tuple[Fault, ...]]:
    """The options among ``given`` (other names are left to the caller), and all faults.

    Args:
        given: option name to its text.
        path: what the faults' paths begin with.
    """
    faults: list[Fault] = []
    options = JobOptions(
        timeout_s=_read(given, "timeout", parse_timeout, path, faults),
        grace_s=_read(given, "grace", parse_grace, path, faults),
        cpu=_read(given, "cpu", parse_cpu, path, faults),
        memory=_read(given, "memory", parse_memory, path, faults),
        gpu=_read(given, "gpu", parse_gpu, path, faults),
    )
    return options, tuple(faults)


OPTION_NAMES: Final = ("timeout", "grace", "cpu", "memory", "gpu")

_T = TypeVar("_T")


def _read(
    given: Mapping[str, str],
    name: str,
    parse: Callable[[str], _T],
    path: str,
    faults: list[Fault],
) -> _T | None:
    if name not in given:
        return None
    try:
        return parse(given[name])
    except ValueError as error:
        faults.append(Fault(f"{path}.{name}", str(error)))
        return None


def parse_timeout(text: str) -> float:
    """Seconds, from 1 s to 30 days.

    Raises:
        ValueError: anything else, in words for people, as in all functions here.
    """
    seconds = parse_duration(text)
    low, high = TIMEOUT_RANGE_S
    if not low <= seconds <= high:
        raise ValueError(f"expects a time from 1s to 30d, got {text}")
    return seconds


def parse_grace(text: str) -> float:
    """Seconds, from 0 to 3600."""
    seconds = parse_duration(text)
    low, high = GRACE_RANGE_S
    if not low <= seconds <= high:
        raise ValueError(f"expects a time from 0s to 1h, got {text}")
    return seconds


def parse_cpu(text: str) -> float:
    """CPUs, more than 0 and at most 1024."""
    match = _CPU.fullmatch(text)
    if not match:
        raise ValueError(f"expects CPUs such as 2, 0.5 or 500m, got {_cut(text)}")
    cpus = float(Decimal(match[1]) / (1000 if match[2] else 1))
    if not 0 < cpus <= CPU_LIMIT:
        raise ValueError(f"expects more than 0 and at most {CPU_LIMIT:.0f} CPUs, got {text}")
    return cpus


def parse_memory(text: str) -> int:
    """Bytes, from 1 MiB to 64 TiB."""
    size = parse_size(text)
    low, high = MEMORY_RANGE
    if not low <= size <= high:
        raise ValueError(f"expects a size from 1Mi to 64Ti, got {text}")
    return size


def parse_gpu(text: str) -> int:
    """Devices, from 0 to 64."""
    if not _WHOLE.fullmatch(text) or int(text) > GPU_LIMIT:
        raise ValueError(f"expects a whole number from 0 to {GPU_LIMIT}, got {_cut(text)}")
    return int(text)


def parse_duration(text: str) -> float:
    """Seconds, from ``90``, ``90s``, ``15m``, ``1.5h`` or ``7d``."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"expects a time such as 90, 90s, 15m, 2h or 1d, got {_cut(text)}")
    return float(Decimal(match[1]) * _SECONDS[match[2]])


def parse_size(text: str) -> int:
    """Bytes, from ``1048576``, ``512Mi``, ``1.5Gi`` (powers of 1024) or ``2G`` (of 1000)."""
    match = _SIZE.fullmatch(text)
    if not match or (match[2] is None and "." in text):
        raise ValueError(f"expects bytes, or a size such as 512Mi, 4Gi or 2G, got {_cut(text)}")
    return int(Decimal(match[1]) * _BYTES.get(match[2], 1))


def _cut(text: str) -> str:
    return repr(text) if len(text) <= 40 else repr(text[:37] + "...")
