"""Wait for the thing itself: tests ask again until it is so, and give up at a deadline.

Nothing in the tests sleeps in the hope that something will have happened meanwhile.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

PAUSE = 0.01  # seconds between two looks

T = TypeVar("T")


async def until(
    predicate: Callable[[], T | Awaitable[T]], within: float = 10.0, what: str | None = None
) -> T:
    """Ask ``predicate`` until it answers something true, and return that.

    Args:
        predicate: a function or a coroutine function.
        within: seconds.
        what: what is waited for, for the message; the predicate's own text by default.

    Raises:
        AssertionError: it was not so within the time.
    """
    deadline = time.monotonic() + within
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or _text_of(predicate)}")
        await asyncio.sleep(PAUSE)


def _text_of(predicate: Callable[..., object]) -> str:
    try:
        return inspect.getsource(predicate).strip()
    except OSError:  # typed at a prompt, or the file has changed
        return repr(predicate)
