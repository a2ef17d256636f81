"""Head lines: words separated by one space, ended by a newline. Everything is checked, nothing is trusted."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any, Final

from realmframe.errors import RemoteProtocolError

MAX_BODY: Final = 64 * 1024 * 1024
MAX_HEAD: Final = 1024
_NUMBER: Final = re.compile(rb"-?\d{1,20}")
_DECIMAL: Final = re.compile(rb"\d{1,20}(\.\d{0,40})?(e[-+]?\d{1,3})?")
_I64, _U64 = 1 << 63, 1 << 64


class Head:
    """Reads the words of one head line, then what follows it."""

    def __init__(self, data: bytes, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        end = data.find(b"\n", 0, MAX_HEAD)
        if end < 0:
            raise RemoteProtocolError("A message has no head line.", offset=0)
        self._data = data
        self._words = data[:end].split(b" ")
        self._next = 0
        self._end = end + 1

    @property
    def kind(self) -> str:
        """The name of the message."""
        return self.word().decode("ascii", "replace")

    def fail(self, what: str) -> RemoteProtocolError:
        """Make the error that names the message and where in it."""
        offset = sum(len(w) + 1 for w in self._words[: max(0, self._next - 1)])
        name = self._words[0][:20].decode("ascii", "replace")
        return RemoteProtocolError(f"Bad {name!r} message: {what}", offset=offset)

    def word(self) -> bytes:
        """Take the next word."""
        self._next += 1
        if self._next > len(self._words):
            raise self.fail("its head line is too short")
        return self._words[self._next - 1]

    def number(self, low: int = 0, high: int = _U64 - 1) -> int:
        """Take a decimal number within bounds."""
        word = self.word()
        if not _NUMBER.fullmatch(word):
            raise self.fail("a number was expected")
        value = int(word)
        if not low <= value <= high:
            raise self.fail("a number is out of range")
        return value

    def signed(self) -> int:
        """Take a signed 64-bit number."""
        return self.number(-_I64, _I64 - 1)

    def flag(self) -> bool:
        """Take a truth value."""
        return self.number(-_I64, _I64 - 1) != 0

    def estimate(self) -> float:
        """Take a decimal from 0 to 1."""
        word = self.word()
        if not _DECIMAL.fullmatch(word):
            raise self.fail("a decimal was expected")
        value = float(word)
        if not 0.0 <= value <= 1.0:
            raise self.fail("a progress estimate is not between 0 and 1")
        return value

    def size(self) -> int:
        """Take a size."""
        return self.number(0, self._max_body)

    def body(self, size: int) -> bytes:
        """Finish the head line and take so many bytes after it."""
        self.finish()
        found = self._data[self._end : self._end + size]
        if len(found) != size:
            raise self.fail("its body is shorter than its size says")
        self._end += size
        return found

    def finish(self) -> None:
        """Check that no word is left."""
        if self._next != len(self._words):
            self._next += 1
            raise self.fail("its head line is too long")

    def end(self) -> None:
        """Check that nothing follows."""
        if self._next != len(self._words):
            self.finish()
        if self._end != len(self._data):
            raise RemoteProtocolError("A message is followed by more bytes.", offset=self._end)

    def text(self, size: int) -> str:
        """Take a text body."""
        try:
            return self.body(size).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("its body is no UTF-8") from None

    def json(self, size: int) -> dict[str, Any]:
        """Take a JSON object body."""
        return json_object(self, self.text(size))

    def compressed(self, is_compressed: bool, size: int, compressed_size: int) -> tuple[bytes, int, int]:
        """Take a body that may be compressed: bytes, and where in them it begins and ends.

        Never makes more bytes than the head line declares, and copies none that are not compressed.
        """
        if not is_compressed:
            self.finish()
            start, self._end = self._end, self._end + size
            if self._end > len(self._data):
                raise self.fail("its body is shorter than its size says")
            return self._data, start, self._end
        packed = self.body(compressed_size)
        inflater = zlib.decompressobj()
        try:
            plain = inflater.decompress(packed, size + 1)
        except zlib.error:
            raise self.fail("its body cannot be decompressed") from None
        if len(plain) != size or not inflater.eof or inflater.unused_data:
            raise self.fail("its body does not decompress to the size that it says")
        return plain, 0, size


def json_object(head: Head, text: str) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        found = json.loads(text)
        if "\\u" in text:  # an escaped lone surrogate is no text
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise head.fail("its body is no JSON") from None
    if not isinstance(found, dict):
        raise head.fail("its body is no JSON object")
    return found


#: The numbers at the head of an entry, by how many there are.
_HEADS: Final = {n: re.compile(rb"(\d{1,20}) " * n) for n in (5, 6)}


class Entries:
    """Reads the entries of an UPLOAD or DOWNLOAD body: numbers separated by spaces, then bytes."""

    def __init__(self, body: tuple[bytes, int, int]) -> None:
        self._body, self._at, self._stop = body

    def __bool__(self) -> bool:
        return self._at < self._stop

    def take(self, count: int) -> tuple[list[int], bytes]:
        """Take ``count`` numbers (5 or 6), the last of which is the size of the bytes that follow."""
        found = _HEADS[count].match(self._body, self._at, self._stop)
        if found is None:
            raise RemoteProtocolError("A changeset entry has a malformed head.", offset=self._at)
        numbers = [int(word) for word in found.groups()]
        if max(numbers) >= _U64:
            raise RemoteProtocolError("A changeset entry has a number out of range.", offset=self._at)
        start = found.end()
        end = start + numbers[-1]
        if end > self._stop:
            raise RemoteProtocolError("A changeset entry is longer than its message.", offset=start)
        self._at = end
        return numbers, self._body[start:end]
