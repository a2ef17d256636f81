"""MARKs of one client session: asking to be told when everything that the server has now is here."""

from __future__ import annotations

from realmframe.errors import RemoteProtocolError


class Marks:
    """How far the MARKs of a session are.

    A MARK is reached when it was answered and every DOWNLOAD that came before the answer is integrated.
    """

    def __init__(self) -> None:
        self._target = self._sent = self._answered = self._reached = 0
        self._downloads = self._integrated = self._downloads_at_answer = 0
        self._is_asked = False

    def ask(self) -> int:
        """Want one more; gives its number."""
        self._target += 1
        return self._target

    def bound(self) -> None:
        """Begin a binding: what was not answered is asked again."""
        self._sent = self._answered
        self._is_asked = False

    def next_request(self) -> int | None:
        """Give the number to send now, if one is wanted that was not sent."""
        if self._target <= self._sent:
            return None
        self._sent, self._is_asked = self._target, True
        return self._sent

    def first_request(self) -> int | None:
        """Give the number to send now that there is nothing else to say, if this binding has sent none."""
        if not self._is_asked:
            self.ask()
        return self.next_request()

    def download_came(self) -> None:
        """Note that there is one more DOWNLOAD to integrate."""
        self._downloads += 1

    def download_integrated(self) -> None:
        """Note that one was integrated."""
        self._integrated += 1

    def answered(self, request: int) -> None:
        """Take the server's answer.

        Raises
        ------
        RemoteProtocolError
            If that was not asked, or answered before.
        """
        if not self._answered < request <= self._sent:
            raise RemoteProtocolError(f"The server answered MARK {request}, which was not asked.")
        self._answered = request
        self._downloads_at_answer = self._downloads

    def newly_reached(self) -> int | None:
        """Give the number of the newest MARK wanted if it is reached, once."""
        if self._answered in (0, self._reached) or self._answered < self._target:
            return None
        if self._integrated < self._downloads_at_answer:
            return None
        self._reached = self._answered
        return self._reached
