"""Page cursors: opaque to the caller, good only for the list that they came from.

A cursor holds the ledger's sequence number where the next page begins and a digest of the
filter. It grants nothing (the next page is decided anew), so it is checked but not signed.
"""

import base64
import binascii
import hashlib
import struct

from model_training.errors import Fault, InvalidRequest
from model_training.jobs import canonical_json
from model_training.ledger.ledger import JobFilter

_LAYOUT = struct.Struct(">Q8s")  # sequence number, digest of the filter


def encode_cursor(sequence: int, job_filter: JobFilter) -> str:
    """A cursor for the page of jobs older than ``sequence``."""
    packed = _LAYOUT.pack(sequence, _digest(job_filter))
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode_cursor(cursor: str, job_filter: JobFilter) -> int:
    """The sequence number.

    Raises:
        InvalidRequest: it is made up, or comes from a list with another filter.
    """
    try:
        packed = base64.b64decode(cursor.encode() + b"==", altchars=b"-_", validate=True)
        sequence, digest = _LAYOUT.unpack(packed)
    except (binascii.Error, struct.error, ValueError):
        raise InvalidRequest(
            Fault("query.cursor", "this is no cursor; take it from the Link header of a page")
        ) from None
    if digest != _digest(job_filter) or sequence > 2**63 - 1:
        raise InvalidRequest(
            Fault("query.cursor", "this cursor is of a list with another filter; begin anew")
        )
    return sequence


def _digest(job_filter: JobFilter) -> bytes:
    # Who may read which pairs can change between two pages and is decided anew for each.
    asked = [
        job_filter.pipeline,
        sorted(job_filter.states),
        job_filter.owner,
        str(job_filter.created_after),
        str(job_filter.created_before),
    ]
    return hashlib.sha256(canonical_json(asked).encode()).digest()[:8]
