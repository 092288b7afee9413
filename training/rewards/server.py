"""`igrpo train serve-rewards`: rewards for trainers on other machines, over HTTP.

`POST /score` takes what `wire` describes and answers {"scores": [...]}; `GET /` answers the terms. Made for a
network of one's own: a shared secret keeps others out, nothing is encrypted. What is sent is limited before
it is read; no pickle is involved.
"""

from __future__ import annotations

import hmac
import json
import select
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from igrpo_sdk.errors import InputError, ResourceError

from ..common.recipe import build, read_mapping
from .base import Reward, Scores
from .composition import RewardsConfig, make_rewards
from .remote import MAX_BODY, TOKEN, shared_token
from .scoring import checked_score, finite
from .wire import decode_rollouts

__all__ = ["RewardServer", "read_config", "serve"]

_SILENCE = 60.0  # seconds after which a client that sends nothing is let go
_DIGITS = 18  # of a request's length


class RewardServer(ThreadingHTTPServer):
    """Answers requests for scores, one at a time; `waiting` are held in memory, further ones wait unread.

    Call `serve_forever`, in a thread if need be, then `shutdown` and `server_close`.
    """

    daemon_threads = True

    def __init__(
        self,
        rewards: Sequence[Reward],
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        max_body: int = MAX_BODY,
        waiting: int = 4,
        patience: float = 60.0,
    ) -> None:
        """Listen; ResourceError when the address cannot be had.

        Args:
            rewards: what is served, by name.
            host: the address to listen on.
            port: 0 takes a free one; see `url`.
            token: what a client must know; None lets everybody in who can reach the address.
            max_body: bytes of the largest request.
            waiting: requests held in memory at once; further ones are not read yet.
            patience: seconds that one of those waits before it is told to come again (503).
        """
        self.rewards = {reward.name: reward for reward in rewards}
        self.token, self.max_body, self.patience = token, max_body, patience
        self.room, self.scoring = threading.BoundedSemaphore(waiting), threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ResourceError(f"{host}:{port} cannot be listened on ({error}): choose another") from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line for a client that has gone, where `ThreadingHTTPServer` prints a traceback."""
        print(f"{client_address[0]} {sys.exception()!r}", file=sys.stderr)

    @property
    def url(self) -> str:
        """The address for `RemoteReward`."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"


class _Refused(Exception):
    """An answer that is an error: its HTTP status and what to say."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: RewardServer
    timeout = _SILENCE
    server_version, sys_version = "igrpo-rewards", ""

    def do_GET(self) -> None:
        """The terms that are served."""
        refused = self._refusal("/")
        if refused is None:
            self._answer(200, {"terms": sorted(self.server.rewards)})
        else:
            self._answer(refused.status, {"error": str(refused)})

    def do_POST(self) -> None:
        """Scores, or why not."""
        try:
            scores = self._serve(self._length())
        except _Refused as refused:
            self._answer(refused.status, {"error": str(refused)})
        else:
            self._answer(200, {"scores": scores})

    def log_message(self, format: str, *args: Any) -> None:
        """One line a request: no prompt, no picture, no token."""
        print(f"{self.address_string()} {format % args}", file=sys.stderr)

    def _length(self) -> int:
        """The length of the body."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refused(411, "give the length of the request")
        if len(length) > _DIGITS:
            raise _Refused(413, f"a request of {len(length)} digits of bytes is too long")
        return int(length)

    def _serve(self, length: int) -> Scores:
        """Read a request if it may be read and there is room for it, and score."""
        refused = self._refusal("/score")
        if refused is None and length > self.server.max_body:
            told = f"{length:,} bytes; at most {self.server.max_body:,}: send fewer rollouts"
            refused = _Refused(413, told)
        if refused is None and not self.server.room.acquire(timeout=self.server.patience):
            refused = _Refused(503, "busy: come again")
        if refused is not None:
            self._discard(length)
            raise refused
        try:
            body = self.rfile.read(length)
            if len(body) < length:
                raise _Refused(400, f"{len(body)} bytes came of {length}")
            return self._score(body)
        finally:
            self.server.room.release()

    def _refusal(self, path: str) -> _Refused | None:
        """Why nothing is answered to a request that may be for `path` alone."""
        token, given = self.server.token, self.headers.get("Authorization", "")
        if self.path != path:
            return _Refused(404, f"{self.path!r} is unknown: POST to /score, or GET /")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return _Refused(401, f"the token is wrong: set {TOKEN} as on the server")
        return None

    def _discard(self, length: int) -> None:
        """Let a request that is refused pass by: who is still sending does not read the answer."""
        left = min(length, 4 * self.server.max_body)
        while left > 0 and (part := self.rfile.read(min(left, 2**16))):
            left -= len(part)

    def _score(self, body: bytes) -> Scores:
        """The scores that a request asks for."""
        try:
            term, rollouts = decode_rollouts(body)
        except InputError as error:
            raise _Refused(400, str(error)) from None
        reward = self.server.rewards.get(term)
        if reward is None:
            raise _Refused(404, f"term {term!r} is unknown: there is {', '.join(self.server.rewards)}")
        with self.server.scoring:
            if self._is_gone():
                raise _Refused(400, "nobody waits for the scores any more")
            try:
                return finite(checked_score(reward, rollouts))[0]
            except Exception as error:
                raise _Refused(500, f"{type(error).__name__}: {error}") from error

    def _is_gone(self) -> bool:
        """Whether the client has closed the connection, as it does when it no longer waits."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(config: RewardsConfig, host: str, port: int) -> None:
    """Serve rewards until interrupted; warns when everybody who can reach the address may ask."""
    token = shared_token()
    if token is None and not _is_local(host):
        told = f"everybody who can reach {host} may ask for scores: set {TOKEN} here and at the trainer"
        warnings.warn(told, stacklevel=2)
    with RewardServer(make_rewards(config), host, port, token) as server:
        print(f"serving {', '.join(server.rewards)} at {server.url}", file=sys.stderr)
        server.serve_forever()


def read_config(recipe: str, changes: Sequence[str] = ()) -> RewardsConfig:
    """The group `rewards` of a recipe of any kind; InputError without one."""
    group = read_mapping(recipe, changes).get("rewards")
    if not isinstance(group, dict):
        raise InputError(f"recipe {recipe!r} has no group 'rewards': name the rewards there")
    return build(RewardsConfig, group, "rewards")


def _is_local(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
