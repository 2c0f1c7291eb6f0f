"""Who uses a service that is under attack, and how long they wait; a process of its own.

``regular_callers.py FILE`` reads one JSON object: ``address`` (host and port), ``headers``,
``path`` (what is posted to) and ``given`` (the parameters of each job, in their order). Asks for
``/livez`` and the list, and posts a job each ``POST_S``, each on a new connection, until its
standard input ends. Prints one object: ``waited`` (seconds, by kind), ``faults`` and ``posted``.
It knows HTTP, and nothing of the product.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path

ASK_S = 0.05  # seconds between two questions of one kind
POST_S = 0.25
PATIENCE_S = 10.0


class Callers:
    """All of them, each kind in a thread."""

    def __init__(self, case: dict) -> None:
        self.case = case
        self.over = threading.Event()
        self.waited: dict[str, list[float]] = {"livez": [], "list": [], "post": []}
        self.faults: list[str] = []
        self.posted: list[dict] = []
        self.threads = [
            threading.Thread(target=each) for each in (self.look, self.ask_for_list, self.post)
        ]

    def run(self) -> dict:
        for thread in self.threads:
            thread.start()
        sys.stdin.read()
        self.over.set()
        for thread in self.threads:
            thread.join()
        return {"waited": self.waited, "faults": self.faults, "posted": self.posted}

    def look(self) -> None:
        while not self.over.wait(ASK_S):
            self.ask("livez", "GET", "/livez", 200, {})

    def ask_for_list(self) -> None:
        while not self.over.wait(ASK_S):
            self.ask("list", "GET", "/training-jobs?limit=20", 200, self.case["headers"])

    def post(self) -> None:
        headers = {**self.case["headers"], "Content-Type": "application/json"}
        for given in self.case["given"]:
            sent = time.monotonic()
            body = self.ask("post", "POST", self.case["path"], 201, headers, json.dumps(given))
            name = json.loads(body)["name"] if body else None
            told = {"seed": given["seed"], "name": name, "sent": sent}
            self.posted.append(told | {"answered": time.monotonic() if body else None})
            if self.over.wait(POST_S):
                return

    def ask(
        self, kind: str, method: str, path: str, wanted: int, headers: dict, body: str | None = None
    ) -> bytes:
        """The answer's body if it is the one that is wanted, else nothing and a fault."""
        began = time.monotonic()
        connection = http.client.HTTPConnection(*self.case["address"], timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.faults.append(f"{kind}: {error!r}")
            return b""
        finally:
            connection.close()
            self.waited[kind].append(time.monotonic() - began)
        if answer.status != wanted:
            self.faults.append(f"{kind}: {answer.status} {content[:300].decode(errors='replace')}")
            return b""
        return content


if __name__ == "__main__":
    print(json.dumps(Callers(json.loads(Path(sys.argv[1]).read_text())).run()))
