"""A refused credential is shown once; what replaces it once more.

Tokens end while a log is followed for a day, and a server may doubt one before its time. This
stands around every operation, so that none of them has to think of it.
"""

from model_training.client.exchange import Answer, Disconnected, Effect, Operation, Renew, Reply, T


def renewing(operation: Operation[T]) -> Operation[T]:
    """The operation; a request that is answered 401 is sent again if there is another token."""
    reply: Reply = None
    cut: Disconnected | None = None
    try:
        while True:
            try:
                effect = operation.send(reply) if cut is None else operation.throw(cut)
            except StopIteration as end:
                return end.value
            reply, cut = None, None
            try:
                reply = yield from _performed(effect)
            except Disconnected as error:
                cut = error
    finally:
        operation.close()


def _performed(effect: Effect) -> Operation[Reply]:
    reply = yield effect
    if isinstance(reply, Answer) and reply.status == 401 and (yield Renew()):
        return (yield effect)
    return reply
