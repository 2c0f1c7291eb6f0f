"""Every file name in the data folder, in one place.

```
DATA/                      0700
  token                    0600, what the command and the client send
  api-keys.json            0600, digests of API keys, with api-keys.json.lock held to change them
  audit.jsonl              0600, a line a decision, where an access file is used
  server.lock server.json  who serves this folder: held lock; url, pid, version
  ledger.sqlite3           what happened; rebuilt from jobs/ when it is lost
  pipelines/NAME           the folder of a pipeline that was registered for good
  environments/DIGEST/     built once per content of a requirements file; DIGEST.lock beside it
  jobs/.open/NAME          the spec once more, until the ledger has recorded the job's end
  jobs/.new/ jobs/.gone/   folders on their way in and out: half-written, half-removed
  jobs/SHARD/NAME/         one folder a job, 256 shards
    spec.json              what was accepted (0600)
    lock                   held by whoever runs the job: its supervisor, for life; in it the
                           devices that were handed out
    run.json exit.json     written by the supervisor: that it runs, how it ended
    stop.json              that a stop was asked for
    exit.json.tmp          the space that exit.json will need, taken at the start
    parameters.json        the file named by MODEL_TRAINING_PARAMETERS_FILE, made at the start
    supervisor.log         the supervisor's own words, capped
    log/ATTEMPT/           the output (logs/segments.py)
      source.json          the pod that it is copied from, and up to which line
    output/                0700, the folder named by MODEL_TRAINING_OUTPUT
```

Standard library only, and cheap to import: the supervisor and the client use it too (dataclasses
and hashlib would cost each supervisor 6 MB and 15 ms).
"""

import os
from pathlib import Path
from typing import NamedTuple


def default_data_folder() -> Path:
    """``MODEL_TRAINING_DATA``, or the state folder of the XDG base directories."""
    if chosen := os.environ.get("MODEL_TRAINING_DATA"):
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "model-training"


class JobFolder(NamedTuple):
    """The folder of one job."""

    path: Path

    @property
    def name(self) -> str:
        """The job's name."""
        return self.path.name

    @property
    def spec(self) -> Path:
        """What was accepted."""
        return self.path / "spec.json"

    @property
    def lock(self) -> Path:
        """Held by whoever runs the job."""
        return self.path / "lock"

    @property
    def run(self) -> Path:
        """That the supervisor began, and with what."""
        return self.path / "run.json"

    @property
    def exit(self) -> Path:
        """How the job ended."""
        return self.path / "exit.json"

    @property
    def stop(self) -> Path:
        """That a stop was asked for."""
        return self.path / "stop.json"

    @property
    def parameters(self) -> Path:
        """The parameters as one line of JSON."""
        return self.path / "parameters.json"

    @property
    def supervisor_log(self) -> Path:
        """The supervisor's own words."""
        return self.path / "supervisor.log"

    @property
    def logs(self) -> Path:
        """Holds a folder an attempt."""
        return self.path / "log"

    def log(self, attempt: int) -> Path:
        """The log folder of one attempt, counted from 1."""
        return self.logs / str(attempt)

    def log_source(self, attempt: int) -> Path:
        """Which pod the log of an attempt is copied from, and how far."""
        return self.log(attempt) / "source.json"

    @property
    def output(self) -> Path:
        """What the job keeps."""
        return self.path / "output"


class DataFolder(NamedTuple):
    """The folder of one service."""

    root: Path

    @property
    def token(self) -> Path:
        """The local token."""
        return self.root / "token"

    @property
    def api_keys(self) -> Path:
        """The keys that ``access key create`` makes."""
        return self.root / "api-keys.json"

    @property
    def audit(self) -> Path:
        """What was decided."""
        return self.root / "audit.jsonl"

    @property
    def server_lock(self) -> Path:
        """Held by the server for life."""
        return self.root / "server.lock"

    @property
    def server(self) -> Path:
        """Where the server listens."""
        return self.root / "server.json"

    @property
    def ledger(self) -> Path:
        """What happened."""
        return self.root / "ledger.sqlite3"

    @property
    def pipelines(self) -> Path:
        """A file per registered pipeline."""
        return self.root / "pipelines"

    @property
    def environments(self) -> Path:
        """A folder per content of a requirements file."""
        return self.root / "environments"

    @property
    def jobs(self) -> Path:
        """All job folders, in shards."""
        return self.root / "jobs"

    @property
    def open_jobs(self) -> Path:
        """A file per job whose end the ledger has not recorded."""
        return self.jobs / ".open"

    @property
    def new_jobs(self) -> Path:
        """Folders being written."""
        return self.jobs / ".new"

    @property
    def gone_jobs(self) -> Path:
        """Folders being removed."""
        return self.jobs / ".gone"

    def job(self, name: str) -> JobFolder:
        """The folder of the job ``name``, which must be a valid job name."""
        import hashlib

        shard = hashlib.sha256(name.encode()).hexdigest()[:2]
        return JobFolder(self.jobs / shard / name)
