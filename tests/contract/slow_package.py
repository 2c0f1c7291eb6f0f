"""A Python package whose build takes until it is told to go on, and needs no network.

Its build backend is its own (PEP 517, in the tree), so that any installer runs it. It notes
the process id of each build in ``PACKAGE.building`` and waits at the FIFO ``PACKAGE.go``.
"""

import os
from pathlib import Path

BACKEND = """
import os, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open({building!r}, "a") as note:
        note.write(f"{{os.getpid()}}\\n")
    open({go!r}).read()
    name = "{package}-1.0-py3-none-any.whl"
    info = "{package}-1.0.dist-info"
    files = {{
        "{package}.py": "there = True\\n",
        f"{{info}}/METADATA": "Metadata-Version: 2.1\\nName: {package}\\nVersion: 1.0\\n",
        f"{{info}}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\n"
        "Tag: py3-none-any\\n",
    }}
    record = "".join(f"{{path}},,\\n" for path in [*files, f"{{info}}/RECORD"])
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in {{**files, f"{{info}}/RECORD": record}}.items():
            wheel.writestr(path, text)
    return name
"""

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{package}"
version = "1.0"
"""


def write_slow_package(folder: Path, package: str) -> Path:
    """Write the package into ``folder``; the path of a requirements file that asks for it."""
    source = folder / package
    source.mkdir()
    go = folder / f"{package}.go"
    os.mkfifo(go)
    words = {"package": package, "building": str(folder / f"{package}.building"), "go": str(go)}
    (source / "backend.py").write_text(BACKEND.format(**words))
    (source / "pyproject.toml").write_text(PROJECT.format(package=package))
    requirements = folder / f"{package}-requirements.txt"
    requirements.write_text(f"--no-index\n{package} @ {source.as_uri()}\n")
    return requirements
