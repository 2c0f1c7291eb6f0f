"""What may be done, in words that every decision point takes: no dots, no colons."""

from enum import StrEnum


class Action(StrEnum):
    """What may be done."""

    CREATE = "create"
    LIST = "list"
    READ = "read"
    READ_LOGS = "read_logs"
    READ_OUTPUTS = "read_outputs"
    STOP = "stop"
    DELETE = "delete"
