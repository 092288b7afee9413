"""A reward that another machine computes: the client of `server`, over HTTP."""

from __future__ import annotations

import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from typing import Any
from urllib.parse import urlsplit

from igrpo_sdk.config import check_positive, check_whole
from igrpo_sdk.errors import InputError
from igrpo_sdk.reading import parse_json, shortened

from .base import Rollout, Scores
from .scoring import RewardError
from .terms import Shared, Term
from .wire import encode_rollouts

__all__ = ["MAX_BODY", "TOKEN", "RemoteReward", "RemoteTerm", "shared_token"]

MAX_BODY = 256 * 2**20
"""Largest request, in bytes; a batch of more is sent in parts."""
TOKEN = "IGRPO_REWARD_TOKEN"
"""The environment variable that holds the secret that client and server share, if any."""

_MAX_ANSWER = 2**20
_MAX_PAUSE = 30.0  # seconds before a try
_PASSING = (502, 503, 504)  # answers after which another try may work


class RemoteReward:
    """One term of the rewards that a server scores; the same numbers as there.

    name: what logs and the recipe call it here. Connections that fail, time out or are refused because the
    server is busy for a minute are tried again, after 1, 2, 4, ... seconds, and then are a RewardError; what
    the server says is wrong is one at once. Proxies of the environment are not used.
    """

    def __init__(
        self,
        url: str,
        term: str,
        name: str | None = None,
        timeout: float = 300.0,
        retries: int = 3,
        pause: float = 1.0,
        max_body: int = MAX_BODY,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: of the server, http:// or https://.
            term: the server's name for the reward.
            name: by default the same.
            timeout: seconds that the server may be silent, for each try.
            retries: tries after the first.
            pause: seconds before the second try; doubles with each.
            max_body: bytes of one request; not more than the server takes.

        Raises InputError for an address or a number that is none, and what `shared_token` does.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InputError(f"url {url!r}: give the address of a reward server, like http://localhost:8900")
        if not 0 < timeout < math.inf or retries < 0 or pause < 0 or max_body < 1:
            raise InputError(
                f"timeout={timeout}, retries={retries}, pause={pause}, max_body={max_body}: timeout and "
                "max_body must be above 0, the others at least 0"
            )
        shared_token()
        self.name = name or term
        self._url, self._term = url.rstrip("/") + "/score", term
        self._timeout, self._retries, self._pause, self._max_body = timeout, retries, pause, max_body
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def score(self, rollouts: Sequence[Rollout]) -> Scores:
        """What the server says; RewardError when it cannot be had, InputError for a rollout too large for a
        request.
        """
        return [score for body, count in self._bodies(rollouts) for score in self._ask(body, count)]

    def _bodies(self, rollouts: Sequence[Rollout]) -> Iterator[tuple[bytes, int]]:
        """Requests for the rollouts, in order, with how many each holds: halved until they fit."""
        parts = encode_rollouts(self._term, rollouts)
        size = sum(map(len, parts))
        if size <= self._max_body:
            yield b"".join(parts), len(rollouts)
        elif len(rollouts) < 2:
            raise InputError(f"one rollout makes {size:,} bytes; a request has at most {self._max_body:,}")
        else:
            half = len(rollouts) // 2
            yield from self._bodies(rollouts[:half])
            yield from self._bodies(rollouts[half:])

    def _ask(self, body: bytes, count: int) -> Scores:
        """One request, tried until it is answered."""
        headers = {"Content-Type": "application/octet-stream"}
        if token := shared_token():
            headers["Authorization"] = f"Bearer {token}"
        reason = ""
        for trial in range(self._retries + 1):
            if trial:
                time.sleep(min(self._pause * 2 ** (trial - 1), _MAX_PAUSE))
            try:
                request = urllib.request.Request(self._url, body, headers)
                with self._open(request, timeout=self._timeout) as answer:
                    content = answer.read(_MAX_ANSWER)
                    if answer.length:  # of what was announced, not there yet
                        raise IncompleteRead(content, answer.length)
                    return _scores(content, count)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {_told(error)}"
                if error.code not in _PASSING:
                    raise RewardError(f"reward {self.name!r}: {self._url} says: {reason}") from None
            except (OSError, HTTPException) as error:  # URLError, TimeoutError, a connection that is cut
                reason = f"{type(error).__name__}: {error}"
        raise RewardError(
            f"reward {self.name!r}: {self._url} gives no scores in {self._retries + 1} tries ({reason}): is "
            "the server running (igrpo train serve-rewards), is the address right, has it too much to do?"
        )


@dataclass(frozen=True, kw_only=True)
class RemoteTerm(Term):
    """`RemoteReward`: the term `term` of the server at `url`; called `name` here, by default as there."""

    url: str
    term: str
    name: str | None = None
    timeout: float = 300.0
    retries: int = 3

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        check_positive("remote.timeout", self.timeout)
        check_whole("remote.retries", self.retries, 0, 100)

    def called(self, key: str) -> str:
        """Its name here."""
        return self.name or self.term

    def build(self, shared: Shared) -> RemoteReward:
        """See `Term.build`."""
        return RemoteReward(self.url, self.term, self.name, self.timeout, self.retries)


def shared_token() -> str | None:
    """The secret of the environment, without space around it, as files of secrets end with a line; None
    without one. Raises InputError, which does not show it, for one that a header cannot hold.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise InputError(f"{TOKEN}: holds characters that cannot be sent; use letters, digits and signs")
    return token or None


def _scores(answer: bytes, count: int) -> Scores:
    """The scores of an answer; NaN cannot be in JSON as the server writes it."""
    try:
        scores: Any = parse_json(answer, "the answer")["scores"]
        if len(scores) != count:
            raise ValueError(f"{len(scores)} scores for {count} rollouts")
        return [None if score is None else float(score) for score in scores]
    except (ValueError, TypeError, KeyError) as error:
        reason = shortened(str(error), 200)[1:-1]
        raise RewardError(f"the answer holds no scores ({reason}): is this a reward server?") from None


def _told(error: urllib.error.HTTPError) -> str:
    """The reason that a server gives in its answer."""
    try:
        told = parse_json(error.read(_MAX_ANSWER), "the answer")["error"]
    except (OSError, ValueError, TypeError, KeyError, HTTPException):
        told = error.reason
    return shortened(str(told), 500)[1:-1]
