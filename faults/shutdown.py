"""SIGTERM and Ctrl+C with followers open: gone at once, followers told, jobs unharmed."""

import http.client
import signal
import threading

from following import events
from lab import Lab, Promise
from service import Service

GONE_S = 1.0
FOLLOWERS = 3  # of each kind


def campaign(lab: Lab, count: int) -> None:
    """``count`` farewells, SIGTERM and SIGINT by turns, over jobs that live through all of them."""
    service = lab.service("--slots", "2").up()
    gate = lab.root / "gate"
    promises = [lab.promise(pieces=100, exit_code=5 * each, gate=str(gate)) for each in range(2)]
    for promise in promises:
        lab.submit(service, promise)
        lab.started(promise["name"])
    slowest = 0.0
    for number in range(count):
        sent = signal.SIGINT if number % 2 else signal.SIGTERM
        slowest = max(slowest, one_farewell(lab, service, promises, sent))
        service.up()
        lab.rounds += 1
    last = Follower(service, promises[0]["name"], "text/plain")
    last.has_begun.wait(20)
    gate.touch()
    for promise in promises:
        lab.follow(service, promise)
    last.thread.join(20)
    lab.expect(last.last == "end", f"of a job that ended a text follower saw {last.last}")
    lab.judge(service, promises)
    lab.remove_all(service)
    lab.figures |= {"slowest, seconds": round(slowest, 2), "followers": 2 * FOLLOWERS}


def one_farewell(lab: Lab, service: Service, promises: list[Promise], sent: int) -> float:
    followers = [
        Follower(service, promise["name"], accept)
        for number, accept in enumerate(["text/event-stream", "text/plain"] * FOLLOWERS)
        for promise in [promises[number // 2 % 2]]
    ]
    for follower in followers:
        follower.has_begun.wait(20)
    took = service.end(sent)
    lab.expect(took < GONE_S, f"gone after {took:.2f} s")
    for follower in followers:
        follower.thread.join(20)
        wanted = "bye" if follower.accept == "text/event-stream" else "cut"
        lab.expect(follower.last == wanted, f"a {follower.accept} follower saw {follower.last}")
    left = (service.data / "server.json").exists()
    lab.expect(not left, "server.json still says that it serves")
    return took


class Follower:
    """Somebody who follows; ``last`` says how it ended for him: ``bye``, ``cut`` or ``end``."""

    def __init__(self, service: Service, name: str, accept: str) -> None:
        self.service = service
        self.name = name
        self.accept = accept
        self.last = "nothing"
        self.has_begun = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self) -> None:
        connection = self.service.connection(timeout=20)
        headers = {**self.service.headers, "Accept": self.accept}
        connection.request("GET", f"/training-jobs/{self.name}?follow=true", headers=headers)
        answer = connection.getresponse()
        try:
            self.listen(answer)
        except (http.client.HTTPException, OSError):
            self.last = "cut"
        finally:
            connection.close()

    def listen(self, answer: http.client.HTTPResponse) -> None:
        if self.accept == "text/event-stream":
            for event in events(answer):
                self.has_begun.set()
                self.last = event.kind
            return
        while answer.read1(65536):
            self.has_begun.set()
        # http.client says nothing when chunks stop without the last, empty one.
        self.last = "end" if answer.chunk_left is None and answer.isclosed() else "cut"
