"""AuthzForce, the engine that decides inside of aiSSEMBLE's decision point.

A library of Java, as its server is on no registry: a program of ours reads questions and prints
verdicts. What aiSSEMBLE puts around it (tokens, HTTP, a cache) is not in it.
"""

import hashlib
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from testbed.binaries import cache as kept
from testbed.binaries import made_once, say
from tests.access.servers.tools import output

HERE = Path(__file__).parent
_SETTINGS = """\
<pdp xmlns="http://authzforce.github.io/core/xmlns/pdp/8"
     xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="8.1">
  <policyProvider id="root" xsi:type="StaticPolicyProvider">
    <policyLocation>{policy}</policyLocation>
  </policyProvider>
</pdp>
"""


@cache
def program() -> Path:
    """The folder with the library and our program, made now if it was not yet."""
    parts = [(HERE / name).read_bytes() for name in ("pom.xml", "Decide.java")]
    digest = hashlib.sha256(b"\n".join(parts)).hexdigest()[:16]
    return made_once(kept() / f"authzforce-{digest}", _build)


def _build(folder: Path) -> None:
    say(f"fetching AuthzForce into {folder.parent} (once)")
    goal, into = "dependency:copy-dependencies", f"-DoutputDirectory={folder}"
    output("mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), goal, into)
    output("javac", "-cp", f"{folder}/*", "-d", str(folder), str(HERE / "Decide.java"))


def version() -> str:
    """Of the library."""
    [jar] = program().glob("authzforce-ce-core-pdp-engine-*.jar")
    return jar.stem.removeprefix("authzforce-ce-core-pdp-engine-")


def decided(root: Path, policy: Path, questions: Sequence[tuple[str, str, str]]) -> list[str]:
    """What the policy says to each subject, resource and action, in their order."""
    settings = root / "pdp.xml"
    settings.write_text(_SETTINGS.format(policy=policy.as_uri()))
    folder = program()
    done = subprocess.run(
        ["java", "-cp", f"{folder}:{folder}/*", "Decide", str(settings)],
        input="".join("\t".join(question) + "\n" for question in questions),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
