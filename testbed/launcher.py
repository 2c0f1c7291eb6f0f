"""Become another program, after writing down who that is.

Run as ``python3 -IS launcher.py RECORD PROGRAM ARGUMENT...``. The record is written by the very
process that then becomes the program (same pid, same start time), so there is no instant at which
the program runs and nobody could find it, whenever its starter is killed.
"""

# Without pathlib it starts in half the time.
# ruff: noqa: PTH104, PTH123
import json
import os
import sys


def main() -> None:
    """Write the record, give away the terminal, become the program."""
    record, program, *arguments = sys.argv[1:]
    os.setsid()
    # Field 22 of proc_pid_stat(5); the name in field 2 may hold spaces, so count after it.
    with open("/proc/self/stat") as file:
        started = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    argv = [program, *arguments]
    new = f"{record}.new"
    with open(new, "w") as file:
        json.dump({"pid": os.getpid(), "started": started, "boot": boot, "argv": argv}, file)
    os.rename(new, record)
    os.execv(program, argv)


if __name__ == "__main__":
    main()
