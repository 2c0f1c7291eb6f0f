"""Stops that were asked for: the one thing that only we know, on disk until it is settled.

A stop deletes the Job, so once it is gone nothing in the cluster tells a stopped job from one
that somebody removed. The marker is written before the Job is deleted. All functions block and
are called from threads.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from model_training.folders import DataFolder
from model_training.jobs import JobSpec, JSONObject
from model_training.names import is_job_name


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop that was asked for."""

    spec: JobSpec
    uid: str
    """of its Job: a namesake that comes later is not meant"""
    started: str | None
    """when its process had started, if it had (RFC 3339)"""


def write_stop(data: DataFolder, stop: Stop) -> None:
    """Note, durably, that the job is to be stopped.

    Raises:
        OSError: the disk does not take it.
    """
    path = data.open_jobs / stop.spec.name
    fresh = data.new_jobs / stop.spec.name
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"job": stop.spec.to_json(), "uid": stop.uid, "started": stop.started}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(data.open_jobs, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_stops(data: DataFolder) -> Iterator[Stop]:
    """What is being stopped; a marker that cannot be read is passed over.

    Raises:
        OSError: the disk cannot be read.
    """
    for path in data.open_jobs.iterdir():
        if not is_job_name(path.name):
            continue
        try:
            record = cast("JSONObject", json.loads(path.read_text()))
            spec = JobSpec.from_json(cast("JSONObject", record["job"]))
            yield Stop(spec, str(record["uid"]), cast("str | None", record["started"]))
        except (ValueError, TypeError, KeyError):
            continue  # of another executor, or damaged


def forget_stop(data: DataFolder, name: str) -> None:
    """The end of the job is recorded, or the job removed."""
    (data.open_jobs / name).unlink(missing_ok=True)
