"""A registry of a campaign's own, which may be away while others use the cluster's."""

import time
from pathlib import Path

from toxiproxy import free_port

from testbed import images
from testbed.processes import Record, launch
from testbed.registries import Registry


class OwnRegistry:
    """On loopback, over plain HTTP; the node pulls from it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        self._registry = Registry(self.address, folder / "registry", login=False)
        self._registry.prepare()
        self._folder = folder
        self._process: Record | None = None

    def start(self) -> None:
        component = self._registry.component()
        self._process = launch(component.argv, self._folder / "record", self._folder / "log")
        while not component.healthy():
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process:
            self._process.end()

    def push(self, image: images.Image, name: str) -> None:
        images.push(image, name, self.address)
