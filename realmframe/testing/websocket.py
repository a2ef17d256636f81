"""Where the messages of a WebSocket end in the bytes of a TCP connection."""

from __future__ import annotations

from typing import Final

_HEAD_LIMIT: Final = 1 << 16
#: Opcodes from here on are control frames (close, ping, pong), which may stand between the parts of a message.
_CONTROL: Final = 8
#: Bytes that follow the two of a frame's head, by the value of its 7-bit length (RFC 6455, 5.2).
_LENGTH_BYTES: Final = {126: 2, 127: 8}


class MessageCounter:
    """Reads one direction of a connection: the head of HTTP, then, after an upgrade, frames."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._is_upgraded: bool | None = None
        self._frame = bytearray()
        self._left = 0
        self._ends_message = False

    def feed(self, data: bytes) -> list[int]:
        """Take the next bytes; give the offsets in them at which a message has just ended.

        Parameters
        ----------
        data : bytes

        Returns
        -------
        list of int
            Ascending, each above 0; empty for a connection that is no WebSocket.
        """
        start = 0 if self._is_upgraded else self._read_head(data)
        return self._read_frames(data, start) if self._is_upgraded else []

    def _read_head(self, data: bytes) -> int:
        """Look for the end of HTTP's head; give the offset at which frames begin."""
        if self._is_upgraded is False:
            return len(data)
        before = len(self._head)
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > _HEAD_LIMIT:
                self._is_upgraded = False
            return len(data)
        self._is_upgraded = b"\r\nupgrade: websocket" in bytes(self._head[:end]).lower()
        self._head.clear()
        return end + 4 - before

    def _read_frames(self, data: bytes, at: int) -> list[int]:
        ends: list[int] = []
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
            else:
                self._frame.append(data[at])
                at += 1
                if not self._is_head_complete():
                    continue
            if not self._left and self._ends_message:
                ends.append(at)
        return ends

    def _is_head_complete(self) -> bool:
        head = self._frame
        if len(head) < 2:
            return False
        size = head[1] & 0x7F
        extra = _LENGTH_BYTES.get(size, 0)
        if len(head) < 2 + extra + (4 if head[1] & 0x80 else 0):
            return False
        self._left = int.from_bytes(head[2 : 2 + extra], "big") if extra else size
        self._ends_message = bool(head[0] & 0x80) and head[0] & 0x0F < _CONTROL
        head.clear()
        return True
