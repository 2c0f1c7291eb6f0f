"""The faults that the service survives, each a campaign of its own, counted and judged.

``run.py [--cluster] [NAME ...] [--count N] [--seed N] [--ci]``: a line a campaign, figures in
``.bench/faults.json`` (or ``faults-cluster.json``), exit 1 on any violation. A campaign runs in a
process of its own; those that mount something, in a mount namespace of their own, so that nothing
of it can be left behind. With ``--cluster`` jobs run on the test cluster of ``testbed/up``, which
is started, and whose parts are broken and mended.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab import Lab

HERE = Path(__file__).resolve().parent
REPORTS = HERE.parent / ".bench"
CAMPAIGNS = {
    "server-kill": "server_kill",
    "adoption": "adoption",
    "supervisor-kill": "supervisor_kill",
    "host-restart": "host_restart",
    "clock": "clock",
    "trees": "trees",
    "disk-full": "disk_full",
    "shutdown": "shutdown",
    "second-server": "second_server",
    "slow-clients": "slow_clients",
}
ON_CLUSTER = {
    "api-server-kill": "outages",
    "api-server-stop": "outages",
    "etcd-stop": "outages",
    "kubelet-restart": "outages",
    "containerd-restart": "outages",
    "network-cut": "outages",
    "registry-away": "registry_away",
    "server-kill": "server_kill",
}
USUAL = dict.fromkeys(CAMPAIGNS, 20) | {"adoption": 200, "slow-clients": 45}
IN_CI = USUAL | {"slow-clients": 15}
USUAL_ON_CLUSTER = 20
CI_ON_CLUSTER = 2
NEED_MOUNTS = {"supervisor-kill", "host-restart", "clock", "trees", "disk-full"}


def main() -> int:
    given = parse()
    if given.inside:
        return inside(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if given.ci and given.count:
        print("--ci says how many; leave --count out", file=sys.stderr)
        return 2
    began = time.monotonic()
    if given.cluster:
        from cluster_lab import heal

        heal()
    reports = []
    for name in given.names or given.campaigns:
        reports.append(one(name, count_of(name, given), given.seed, cluster=given.cluster))
        print(line(reports[-1]), flush=True)
    REPORTS.mkdir(exist_ok=True)
    file = REPORTS / ("faults-cluster.json" if given.cluster else "faults.json")
    file.write_text(json.dumps(reports, indent=2) + "\n")
    bad = [report["name"] for report in reports if report["violations"]]
    seconds = time.monotonic() - began
    print(
        f"{len(reports)} campaigns in {seconds:.0f} s, with violations: {', '.join(bad) or 'none'}"
    )
    return 1 if bad else 0


def count_of(name: str, given: argparse.Namespace) -> int:
    if given.count:
        return given.count
    if given.cluster:
        return CI_ON_CLUSTER if given.ci else USUAL_ON_CLUSTER
    return IN_CI[name] if given.ci else USUAL[name]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(CAMPAIGNS)}; with --cluster {', '.join(ON_CLUSTER)}",
    )
    parser.add_argument("--cluster", action="store_true", help="on the test cluster, as root")
    parser.add_argument(
        "--count",
        type=int,
        help="rounds of each (default 20; 200 jobs to adopt; 45 s of slow clients)",
    )
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) % 100_000, help="to repeat one"
    )
    parser.add_argument("--ci", action="store_true", help="all of them, as often as a change needs")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.campaigns = ON_CLUSTER if given.cluster else CAMPAIGNS
    for name in given.names:
        if name not in given.campaigns:
            parser.error(f"no campaign named {name}; there are {', '.join(given.campaigns)}")
    return given


def one(name: str, count: int, seed: int, *, cluster: bool) -> dict:
    """Run one campaign in a process of its own; its report."""
    with tempfile.TemporaryDirectory(prefix="mt-faults-") as folder:
        report = Path(folder) / "report.json"
        own = [sys.executable, str(HERE / "run.py"), name, "--inside", str(report)]
        argv = [*own, "--count", str(count), "--seed", str(seed)]
        argv = [*argv, "--cluster"] if cluster else [*namespace(name), *argv]
        # Ctrl+C reaches it through us, once, so that a second one cannot meet it tidying up.
        process = subprocess.Popen(argv, start_new_session=True)
        try:
            process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        if report.exists():
            return json.loads(report.read_text())
    words = f"the campaign did not finish (exit code {process.returncode})"
    return empty(name, seed, count, cluster=cluster) | {"violations": [words]}


def namespace(name: str) -> list[str]:
    """A mount namespace for those that need one: as root, or in a user namespace."""
    if name not in NEED_MOUNTS:
        return []
    return (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    )


def inside(given: argparse.Namespace) -> int:
    """Be the process of one campaign."""
    [name] = given.names
    began = time.monotonic()
    with place(name, given) as lab:
        try:
            importlib.import_module(given.campaigns[name]).campaign(lab, given.count)
        except KeyboardInterrupt:
            return 130
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was shown
            traceback.print_exc()
            lab.violation(f"the campaign broke off: {error!r}")
    report = empty(name, given.seed, given.count, cluster=given.cluster) | {
        "rounds": lab.rounds,
        "checks": lab.checks,
        "violations": lab.violations,
        "figures": lab.figures,
        "seconds": round(time.monotonic() - began, 1),
    }
    given.inside.write_text(json.dumps(report))
    return 0


def place(name: str, given: argparse.Namespace) -> "Lab":
    from lab import Lab

    if not given.cluster:
        return Lab(name, given.seed)
    from cluster_lab import ClusterLab

    return ClusterLab(name, given.seed)


def empty(name: str, seed: int, count: int, *, cluster: bool) -> dict:
    return {
        "name": name,
        "cluster": cluster,
        "seed": seed,
        "count": count,
        "rounds": 0,
        "checks": 0,
        "violations": [],
        "figures": {},
    }


def line(report: dict) -> str:
    words = [
        f"{report['name']}: {report['rounds']} rounds, {report['checks']} checks,",
        f"{len(report['violations'])} violations, seed {report['seed']}",
    ]
    for what, figure in report["figures"].items():
        if what == "last words":
            continue
        words.append(f"| {what}: {plain(figure)}")
    if report["violations"]:
        on = "--cluster " if report["cluster"] else ""
        words.append(f"| repeat: scripts/faults {on}{report['name']} --seed {report['seed']}")
        words.append(f"--count {report['count']}\n    ")
        words.append("\n    ".join(report["violations"][:20]))
        if last := report["figures"].get("last words"):
            words.append("\n    the server's last words:\n    " + last.replace("\n", "\n    "))
    return " ".join(words)


def plain(figure: object) -> str:
    if isinstance(figure, dict):
        return " ".join(f"{key}={value}" for key, value in figure.items())
    return str(figure)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
