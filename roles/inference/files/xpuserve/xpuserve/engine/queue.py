"""The waiting requests, served fairly over clients, however many each of them has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Optional

from xpuserve.engine.request import Request


class FairQueue:
    """The client that has received least is next (start-time fair queueing).

    A request counts with the tokens of its prompt and of its longest answer, over its client's weight. A
    client that comes, or comes back, starts level with the waiting ones: it cannot save up. Its own requests keep
    their order. Requests of low priority wait until there are no others.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[bool, str], deque[Request]] = {}  # by priority and client
        self._given: dict[str, float] = {}
        self._now = 0.0  # what the client of the last turn had received
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Request]:
        return (request for waiting in self._waiting.values() for request in waiting)

    def of(self, client: str) -> Iterator[Request]:
        """Those of one client."""
        return (request for low in (False, True) for request in self._waiting.get((low, client), ()))

    def extend(self, requests: Iterable[Request]) -> None:
        """Append requests to those of the same client."""
        for request in requests:
            self._of(request).append(request)

    def put_back(self, requests: Iterable[Request]) -> None:
        """Put requests, which were taken in this order, back before those of the same client."""
        for request in reversed(list(requests)):
            self._of(request).appendleft(request)

    def head(self, may: Callable[[Request], bool] = lambda request: True) -> Optional[Request]:
        """The next request, among clients whose first one `may` begin."""
        firsts = [(low, self._given[client], waiting[0]) for (low, client), waiting in self._waiting.items()]
        turns = [(low, given, n) for n, (low, given, first) in enumerate(firsts) if may(first)]
        return firsts[min(turns)[2]][2] if turns else None

    def take(self, request: Request) -> None:
        """Take a request whose turn it is."""
        client = request.client
        self._now = max(self._now, self._given[client])
        self._given[client] += request.most_tokens / request.weight
        self.remove(request)

    def remove(self, request: Request) -> None:
        """Remove a request, whatever its turn. Raises ValueError if it does not wait."""
        key = request.low_priority, request.client
        waiting = self._waiting.get(key, deque())
        waiting.remove(request)
        self._count -= 1
        if not waiting:
            del self._waiting[key]
        # A client without requests here that has received no more than others starts from zero.
        self._given = {
            client: given
            for client, given in self._given.items()
            if given > self._now or any(self._waiting.get((low, client)) for low in (False, True))
        }

    def _of(self, request: Request) -> deque[Request]:
        self._count += 1
        self._given[request.client] = max(self._now, self._given.get(request.client, 0.0))
        return self._waiting.setdefault((request.low_priority, request.client), deque())
