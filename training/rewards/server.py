"""`igrpo train serve-rewards`: rewards for trainers on other machines, over HTTP.

`POST /score` takes what `wire` describes and answers {"scores": [...]}; `GET /` answers the terms. Made for a
network of one's own: a shared secret keeps others out, nothing is encrypted. What is sent is limited before
it is read; no pickle is involved.

A request must be there within a time that its length sets, however it trickles in, and only a complete one
takes a place in the queue: slow clients keep nobody waiting. All bodies together are held in bounded memory.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import ip_address
from types import TracebackType
from typing import Any, TypeVar

from igrpo_sdk.errors import DependencyError, InputError, ResourceError
from igrpo_sdk.reading import shortened

from ..common.recipe import build, read_mapping
from .base import Reward, Rollout, Scores
from .composition import RewardsConfig, make_rewards
from .remote import MAX_BODY, TOKEN, shared_token
from .scoring import checked_score, finite
from .wire import decode_rollouts

try:
    import uvicorn
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.responses import JSONResponse
    from starlette.requests import ClientDisconnect

    from .connections import Held, Memory, Protocol, printable, printable_record
except ImportError as error:
    reason = f"FastAPI and uvicorn cannot be imported ({error}): pip install 'igrpo-sdk[serve]'"
    raise DependencyError(reason) from None

__all__ = ["RewardServer", "read_config", "serve"]

T = TypeVar("T")

_SILENCE = 60.0  # seconds after which a client that sends nothing is let go
_READING = 60.0  # seconds that a body may take, and one more for each of
_RATE = 2**20  # bytes
_DRAINING = 30.0  # seconds that the rest of a refused request may take
_DIGITS = 18  # of a request's length
_STOP = 2  # seconds that requests at work have when the server ends


class RewardServer:
    """Answers requests for scores, one at a time; `waiting` are in the queue, further ones wait before it.

    It listens from the beginning to the end of its context. Call `serve_forever`, in a thread if need be.
    """

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
            waiting: complete requests in the queue. All requests together are held in `waiting` times
                `max_body` bytes and one request more; what exceeds that is not read yet.
            patience: seconds that a complete request waits for the queue before it is told to come again
                (503).
        """
        self.rewards = {reward.name: reward for reward in rewards}
        try:
            self._socket = socket.create_server((host, port))
        except (OSError, OverflowError) as error:
            raise ResourceError(f"{host}:{port} cannot be listened on ({error}): choose another") from None
        # So that connections to machines that are gone end.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.host, self.port = self._socket.getsockname()[:2]
        app = _Desk(self.rewards, token, max_body, waiting, patience).app()
        plain: dict[str, Any] = {"http": Protocol, "ws": "none", "lifespan": "off", "proxy_headers": False}
        self._server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=_STOP, **plain))
        for name in ("uvicorn", "uvicorn.access", "uvicorn.error"):
            logging.getLogger(name).addFilter(printable_record)

    @property
    def url(self) -> str:
        """The address for `RemoteReward`."""
        return f"http://{self.host}:{self.port}"

    def serve_forever(self) -> None:
        """Answer requests until `shutdown`, or until the process is interrupted."""
        self._server.run([self._socket])

    def shutdown(self) -> None:
        """Let `serve_forever` return: at once, or when requests at work have had two seconds to end."""
        self._server.should_exit = True

    def __enter__(self) -> RewardServer:
        """The server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._socket.close()


class _Desk:
    """Where requests are taken in: who may ask, how many are held, whose turn it is."""

    def __init__(
        self, rewards: dict[str, Reward], token: str | None, max_body: int, waiting: int, patience: float
    ) -> None:
        """See `RewardServer`."""
        self.rewards, self.token, self.max_body, self.patience = rewards, token, max_body, patience
        self.room, self.turn = asyncio.BoundedSemaphore(waiting), asyncio.Lock()
        self.memory = Memory(waiting * max_body)

    def app(self) -> FastAPI:
        """The application that uvicorn runs."""
        app = FastAPI(openapi_url=None, dependencies=[Depends(self.admit)])
        app.add_api_route("/", self.terms)
        app.add_api_route("/score", self.score, methods=["POST"])
        app.add_api_route("/{path:path}", self.unknown, methods=["GET", "POST"])
        app.add_exception_handler(HTTPException, self.refuse)
        return app

    async def admit(self, request: Request) -> None:
        """Refuse who does not know the token."""
        given = request.headers.get("Authorization", "")
        if self.token is not None and not hmac.compare_digest(
            given.encode(), f"Bearer {self.token}".encode()
        ):
            raise HTTPException(401, f"the token is wrong: set {TOKEN} as on the server")

    async def terms(self) -> dict[str, list[str]]:
        """The terms that are served."""
        return {"terms": sorted(self.rewards)}

    async def unknown(self, path: str) -> None:
        """Refuse any other path."""
        raise HTTPException(404, f"{shortened('/' + path)} is unknown: POST to /score, or GET /")

    async def score(self, request: Request) -> dict[str, Scores]:
        """Scores, or why not."""
        try:
            return {"scores": await self._take(request, self._length(request))}
        except InputError as error:
            raise HTTPException(400, str(error)) from None
        except asyncio.CancelledError:
            raise HTTPException(503, "the server ends: come again") from None

    async def refuse(self, request: Request, error: Exception) -> JSONResponse:
        """The answer that is an error. What is left of the request passes by first: who is still sending does
        not read an answer.
        """
        assert isinstance(error, HTTPException)
        left = 4 * self.max_body
        with suppress(
            RuntimeError, HTTPException, TimeoutError
        ):  # all has been read; nothing comes; too slow
            async with asyncio.timeout(_DRAINING):
                async for part in _parts(request):
                    left -= len(part)
                    if left < 0:
                        break
        return JSONResponse({"error": printable(str(error.detail))}, error.status_code)

    async def _take(self, request: Request, length: int) -> Scores:
        """Read a request, and score it when there is room in the queue."""
        async with self.memory.request() as held:
            body = await self._read(request, length, held)
            await held.complete()
            try:
                async with asyncio.timeout(self.patience if self.room.locked() else None):
                    await self.room.acquire()
            except TimeoutError:
                raise HTTPException(503, "busy: come again") from None
            try:
                term, rollouts = await _in_thread(decode_rollouts, body)
                if term not in self.rewards:
                    told = f"term {shortened(term)} is unknown: there is {', '.join(self.rewards)}"
                    raise HTTPException(404, told)
                return await self._score(request, self.rewards[term], rollouts)
            finally:
                self.room.release()

    async def _read(self, request: Request, length: int, held: Held) -> bytearray:
        """The body of a request, which must be there in time."""
        seconds = _READING + length / _RATE
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                async for part in _parts(request):
                    await held.take(len(part))
                    body += part
        except TimeoutError:
            told = f"{len(body)} bytes came of {length} in {seconds:.0f} s: come again"
            raise HTTPException(503, told) from None
        if len(body) != length:
            raise HTTPException(400, f"{len(body)} bytes came of {length}")
        return body

    def _length(self, request: Request) -> int:
        """The length of the body, if it may be read."""
        length, chunked = request.headers.get("Content-Length", ""), "Transfer-Encoding" in request.headers
        if chunked or not (length.isascii() and length.isdigit()):
            raise HTTPException(411, "give the length of the request")
        if len(length) > _DIGITS or int(length) > self.max_body:
            told = f"{int(length[:_DIGITS]):,} bytes; at most {self.max_body:,}: send fewer rollouts"
            raise HTTPException(413, told)
        return int(length)

    async def _score(self, request: Request, reward: Reward, rollouts: Sequence[Rollout]) -> Scores:
        """Score when it is the request's turn, unless the client has gone by then."""
        turn = asyncio.ensure_future(self.turn.acquire())
        gone = asyncio.ensure_future(request.receive())  # all is read: what comes next is the end
        await asyncio.wait({turn, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            if not turn.cancel():
                self.turn.release()
            raise HTTPException(400, "nobody waits for the scores any more")
        gone.cancel()
        try:
            return finite(await _in_thread(checked_score, reward, rollouts))[0]
        except Exception as error:
            raise HTTPException(500, f"{type(error).__name__}: {error}") from error
        finally:
            self.turn.release()


async def _parts(request: Request) -> AsyncIterator[bytes]:
    """The body of a request as it comes, until it ends or the client goes."""
    parts = request.stream()
    with suppress(ClientDisconnect):
        while True:
            try:
                async with asyncio.timeout(_SILENCE):
                    part = await anext(parts, None)
            except TimeoutError:
                raise HTTPException(503, f"nothing came for {_SILENCE:g} s: come again") from None
            if part is None:
                return
            yield part


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    """work(*arguments), beside the event loop. A daemon: a reward that hangs does not keep the process."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # what has begun is not cancelled

    def run() -> None:
        try:
            result.set_result(work(*arguments))
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=run, name="reward server", daemon=True).start()
    return await asyncio.wrap_future(result)


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
