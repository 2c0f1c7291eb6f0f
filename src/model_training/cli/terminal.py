"""What a job printed must not command the terminal of whoever reads it.

Escape sequences can move the cursor, rewrite what stands there, set the clipboard or the title,
and make some terminals type. On a terminal only colours (SGR) and what plain progress bars need
(carriage return, backspace, tab) pass; everything else becomes visible text. A pipe gets the
bytes as they are.
"""

import codecs
import re

_SGR_BEGUN = re.compile(r"\x1b(?:\[[0-9;:]{0,64})?")
_SGR_OR_CONTROL = re.compile(r"\x1b\[[0-9;:]{0,64}m|[\x00-\x07\x0b-\x0c\x0e-\x1f\x7f-\x9f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _visible(match: re.Match[str]) -> str:
    text = match[0]
    if len(text) > 1:
        return text
    code = ord(text)
    if code < 0x20:
        return chr(0x2400 + code)  # the Unicode picture of that control character
    return "\u2421" if code == 0x7F else "\ufffd"


def inert(text: str) -> str:
    """Words of a job or a server as one line, or one cell of a table: no control character acts."""
    return _CONTROL.sub(_visible, text)


class TerminalFilter:
    """Makes a stream of bytes fit for a terminal, wherever it is cut into pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes) -> bytes:
        """What may be shown of the stream so far."""
        return self._shown(self._decoder.decode(data), last=False)

    def end(self) -> bytes:
        """What was held back as the beginning of something."""
        return self._shown(self._decoder.decode(b"", final=True), last=True)

    def _shown(self, new: str, *, last: bool) -> bytes:
        text, self._held = self._held + new, ""
        start = text.rfind("\x1b")
        if not last and start >= 0 and _SGR_BEGUN.fullmatch(text, start):
            text, self._held = text[:start], text[start:]
        return _SGR_OR_CONTROL.sub(_visible, text).encode()
