"""The waiting requests, served fairly over clients, however many each of them has."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Optional, Protocol, TypeVar

# Each client's own share of the queue, whoever fills the rest.
OWN_SHARE = 1 / 8


class QueueFullError(Exception):
    """The queue is full."""


class Waiting(Protocol):
    """What a queue needs of a request."""

    client: str
    weight: float
    low_priority: bool

    @property
    def most_tokens(self) -> int:
        """What its turn takes at most, in tokens."""

    @property
    def tokens(self) -> int:
        """What of it waits, in tokens."""


T = TypeVar("T", bound=Waiting)


class FairQueue(Generic[T]):
    """The client that has received least is next (start-time fair queueing).

    A request counts with its most tokens over its client's weight. A client that comes, or comes back, starts level
    with the waiting ones: it cannot save up. Its own requests keep their order. Requests of low priority wait until
    there are no others.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[bool, str], deque[T]] = {}  # by priority and client
        self._given: dict[str, float] = {}
        self._now = 0.0  # what the client of the last turn had received
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        return (request for waiting in self._waiting.values() for request in waiting)

    def of(self, client: str) -> Iterator[T]:
        """Those of one client."""
        return (request for low in (False, True) for request in self._waiting.get((low, client), ()))

    def extend(self, requests: Iterable[T]) -> None:
        """Append requests to those of the same client."""
        for request in requests:
            self._of(request).append(request)

    def put_back(self, requests: Iterable[T]) -> None:
        """Put requests, which were taken in this order, back before those of the same client."""
        for request in reversed(list(requests)):
            self._of(request).appendleft(request)

    def head(self, may: Callable[[T], bool] = lambda request: True) -> Optional[T]:
        """The next request, among clients whose first one `may` begin."""
        firsts = [(low, self._given[client], waiting[0]) for (low, client), waiting in self._waiting.items()]
        turns = [(low, given, n) for n, (low, given, first) in enumerate(firsts) if may(first)]
        return firsts[min(turns)[2]][2] if turns else None

    def take(self, request: T) -> None:
        """Take a request whose turn it is."""
        client = request.client
        self._now = max(self._now, self._given[client])
        self._given[client] += request.most_tokens / request.weight
        self.remove(request)

    def remove(self, request: T) -> None:
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

    def _of(self, request: T) -> deque[T]:
        self._count += 1
        self._given[request.client] = max(self._now, self._given.get(request.client, 0.0))
        return self._waiting.setdefault((request.low_priority, request.client), deque())


class BoundedQueue(FairQueue[T]):
    """A queue with room for so many requests and tokens. Places may be promised to requests that do not wait yet."""

    def __init__(self, requests: int, tokens: int) -> None:
        super().__init__()
        self._requests = requests
        self._tokens = tokens
        self._promised_to: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Number of requests that wait or have a promised place."""
        return len(self) + sum(self._promised_to.values())

    def promise(self, client: str, requests: int, ahead: int = 0) -> None:
        """Reserve places for a client's requests, or raise QueueFullError."""
        if not self.has_room(client, requests, 0, ahead):
            raise QueueFullError
        self._promised_to[client] += requests

    def release(self, client: str, requests: int) -> None:
        """Give up reserved places."""
        self._promised_to[client] -= requests
        self._promised_to += Counter()  # clients without any are removed

    def has_room(self, client: str, requests: int, tokens: int, ahead: int = 0) -> bool:
        """Whether there is room for a client's requests, with so many tokens; `ahead` others wait elsewhere."""
        # A request larger than the whole queue is accepted if nothing waits; otherwise it would never be served.
        total = self.total + ahead
        if not total:
            return True
        waiting = sum(request.tokens for request in self)
        if total + requests <= self._requests and waiting + tokens <= self._tokens:
            return True
        # A full queue still accepts clients with little in it; only very many of those fill their reserve.
        own = list(self.of(client))
        few = len(own) + self._promised_to[client] + requests <= self._requests * OWN_SHARE
        short = sum(request.tokens for request in own) + tokens <= self._tokens * OWN_SHARE
        return few and short and total + requests <= 2 * self._requests
