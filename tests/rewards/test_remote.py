"""Scoring on another machine: the same scores, and typed errors for all that can go wrong in between."""

from __future__ import annotations

import http.client
import json
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from rolled import Held, Say

from igrpo_sdk.commands.dispatch import main
from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.training.commands import serve_rewards
from igrpo_sdk.training.rewards import connections
from igrpo_sdk.training.rewards import server as server_module
from igrpo_sdk.training.rewards.base import Reward, Rollout
from igrpo_sdk.training.rewards.faces import FaceReward
from igrpo_sdk.training.rewards.guards import PromptGuard
from igrpo_sdk.training.rewards.measuring import Measurer
from igrpo_sdk.training.rewards.remote import TOKEN, RemoteReward, shared_token
from igrpo_sdk.training.rewards.scoring import RewardError
from igrpo_sdk.training.rewards.server import RewardServer, read_config
from igrpo_sdk.training.rewards.wire import decode_rollouts, encode_rollouts
from igrpo_sdk.training.world.renderer import render_scenes
from igrpo_sdk.training.world.scenes import Scene

Grey = Callable[[int], list[Rollout]]


@contextmanager
def serving(*rewards: Reward, **options: Any) -> Iterator[RewardServer]:
    """A server in a thread."""
    with RewardServer(rewards, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def groups(rollouts: list[Rollout]) -> list[float]:
    return [float(rollout.group) for rollout in rollouts]


def same(a: Rollout, b: Rollout) -> bool:
    pixels = a.frames.dtype == b.frames.dtype and torch.equal(a.frames, b.frames)
    people = [r.hash for r in a.references] == [r.hash for r in b.references]
    rest = [(r.prompt, r.refined_prompt, r.group, r.places, r.facts) for r in (a, b)]
    return pixels and people and rest[0] == rest[1]


def test_rollouts_survive_the_wire(right: Rollout, swapped: Rollout, grey: Grey) -> None:
    odd = replace(
        grey(1)[0],
        prompt="zwei 人物 \U0001f600",
        refined_prompt="人",
        group=7,
        frames=grey(1)[0].frames[:, ::2],
    )
    sent = [right, odd, swapped]
    body = b"".join(encode_rollouts("faces", sent))
    assert len(body) < sum(r.frames.numel() for r in sent) + 3 * 144 * 144 * 3  # each picture once
    term, read = decode_rollouts(body)
    assert term == "faces" and all(same(a, b) for a, b in zip(sent, read, strict=True))


def test_remote_scores_are_the_local_ones(
    measurer: Measurer, right: Rollout, swapped: Rollout, asked: Scene
) -> None:
    full = replace(right, frames=render_scenes([asked]).frames[0])
    rewards: list[Reward] = [FaceReward(measurer), PromptGuard()]
    rollouts = [right, swapped, replace(right, places=None, facts=None), full]
    with serving(*rewards) as server:
        for reward in rewards:
            far = RemoteReward(server.url, reward.name)
            assert far.name == reward.name
            assert far.score(rollouts) == reward.score(rollouts)
        assert RemoteReward(server.url, "faces").score([]) == []


def test_large_batches_go_in_parts(grey: Grey) -> None:
    reward = Say(groups)
    rollouts = [replace(rollout, group=i) for i, rollout in enumerate(grey(7))]
    limit = sum(map(len, encode_rollouts("say", rollouts))) // 2
    with serving(reward, max_body=limit) as server:
        assert RemoteReward(server.url, "say", max_body=limit).score(rollouts) == groups(rollouts)
        assert reward.calls == 3  # of 3, 2 and 2
        with pytest.raises(InputError, match="one rollout makes"):
            RemoteReward(server.url, "say", max_body=1000).score(rollouts)
        with pytest.raises(RewardError, match="413 .*send fewer rollouts"):
            RemoteReward(server.url, "say").score(rollouts)


def test_nan_becomes_none_on_the_way(grey: Grey) -> None:
    with serving(Say(lambda _: [float("nan"), 1.0, None])) as server:
        assert RemoteReward(server.url, "say").score(grey(3)) == [None, 1.0, None]


def test_what_the_server_says_is_wrong_is_an_error_at_once(grey: Grey) -> None:
    def fail(_: object) -> None:
        raise ValueError("no weights")

    with serving(Say(fail)) as server:
        with pytest.raises(RewardError, match="500 ValueError: no weights"):
            RemoteReward(server.url, "say", pause=9).score(grey(1))
        with pytest.raises(RewardError, match="404 term 'judge' is unknown: there is say"):
            RemoteReward(server.url, "judge", pause=9).score(grey(1))


def test_a_token_keeps_others_out(grey: Grey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    with serving(Say(groups), token="secret") as server:
        reward = RemoteReward(server.url, "say", pause=9)
        with pytest.raises(RewardError, match=f"401 the token is wrong: set {TOKEN}"):
            reward.score(grey(6000))  # more than fits the socket's buffer: the answer is read all the same
        assert ask(server, "GET", "/")[0] == 401
        assert ask(server, "GET", "/", Authorization="Bearer secret") == (200, {"terms": ["say"]})
        monkeypatch.setenv(TOKEN, "secret")
        assert reward.score(grey(1)) == [0.0]


def test_a_server_that_is_away_silent_or_no_reward_server(grey: Grey) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(RewardError, match=r"in 2 tries .*(timed out|TimeoutError).*serve-rewards"):
            RemoteReward(f"http://127.0.0.1:{port}", "say", timeout=0.1, retries=1, pause=0.1).score(grey(1))
        assert 0.3 <= time.monotonic() - start < 100
    with pytest.raises(RewardError, match="in 1 tries .*refused"):
        RemoteReward(f"http://127.0.0.1:{port}", "say", retries=0).score(grey(1))

    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.handle_request).start()
        with pytest.raises(RewardError, match="is this a reward server"):
            RemoteReward(f"http://127.0.0.1:{other.server_port}", "say").score(grey(1))


def test_a_busy_server_is_asked_again(grey: Grey) -> None:
    held = Held()
    with serving(held, waiting=1, patience=0.0) as server:
        first = threading.Thread(target=RemoteReward(server.url, "say").score, args=(grey(1),))
        first.start()
        assert held.inside.wait(250)
        with pytest.raises(RewardError, match="in 1 tries .503 busy"):
            RemoteReward(server.url, "say", retries=0).score(grey(1))
        threading.Timer(0.2, held.go.set).start()
        assert RemoteReward(server.url, "say", retries=9, pause=0.15).score(grey(1)) == [0.0]
        first.join()


def test_who_comes_while_the_server_has_no_room_waits(grey: Grey) -> None:
    held = Held()
    with serving(held, waiting=1) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(RemoteReward(server.url, "say", retries=0).score, grey(1))
        assert held.inside.wait(250)
        others = [pool.submit(RemoteReward(server.url, "say", retries=0).score, grey(1)) for _ in range(3)]
        assert not wait(others, timeout=0.3).done
        held.go.set()
        assert [one.result() for one in (first, *others)] == [[0.0]] * 4


def test_nothing_is_scored_for_who_has_gone(grey: Grey) -> None:
    held = Held()
    with serving(held) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(RemoteReward(server.url, "say").score, grey(1))
        assert held.inside.wait(250)
        with pytest.raises(RewardError, match="in 1 tries .*timed out"):
            RemoteReward(server.url, "say", timeout=0.2, retries=0).score(grey(1))
        held.go.set()
        assert first.result() == [0.0]
        assert RemoteReward(server.url, "say").score(grey(1)) == [0.0]
        assert held.calls == 2


def test_an_answer_that_is_cut_is_asked_for_again(grey: Grey) -> None:
    class Cut(BaseHTTPRequestHandler):
        answers = iter([b'{"sco', b'{"scores": [0.25]}'])

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "18")
            self.end_headers()
            self.wfile.write(next(self.answers))

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Cut) as server:
        threading.Thread(target=lambda: [server.handle_request() for _ in range(2)]).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert RemoteReward(url, "say", retries=1, pause=0.0).score(grey(1)) == [0.25]


def test_tokens_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's last end of line is none of it; what no header can hold is told, and not shown."""
    for given, token in (("secret\n", "secret"), (" ", None)):
        monkeypatch.setenv(TOKEN, given)
        assert shared_token() == token
    for wrong in ("gehe\u00efm", "two\nlines"):
        monkeypatch.setenv(TOKEN, wrong)
        with pytest.raises(InputError, match=f"{TOKEN}: holds characters that cannot be sent") as error:
            RemoteReward("http://localhost", "say")
        assert wrong not in str(error.value)


# ---- bad requests


def changed(rollout: Rollout, **fields: Any) -> bytes:
    """A request whose first rollout has other fields; `references` and such of the header with a prefix."""
    parts = encode_rollouts("say", [rollout])
    header = json.loads(bytes(parts[1]))
    for name, value in fields.items():
        if name.startswith("header_"):
            header[name.removeprefix("header_")] = value
        else:
            header["rollouts"][0][name] = value
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *parts[2:]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"header_version": 1}, "version 1, not 3"),
        ({"header_references": [[32, 32]]}, "must have 3 axes"),
        ({"header_references": [[31, 32, 3]]}, "whose header describes"),
        ({"header_rollouts": 5}, "not a request for scores"),
        ({"frames": [4, 16, 16, 3, 1]}, "must have 4 axes"),
        ({"frames": [10**9, 10**9, 16, 3]}, "whose header describes"),
        ({"frames": [-4, -16, 16, 3]}, "no whole number from 0 on"),
        ({"frames": [True, 16, 16, 3]}, "no whole number"),
        ({"references": []}, "needs references"),
        ({"references": [1]}, "IndexError"),
        ({"references": [-1]}, "no whole number"),
        ({"prompt": 5}, "needs references, a prompt"),
        ({"refined_prompt": 5}, "refined_prompt 5 must be text"),
        ({"group": 1.5}, "a group that is a number"),
        ({"places": ["up"]}, "must be distinct members"),
        ({"places": ["left", "right"]}, "one a reference"),
        ({"places": [[]]}, "not a request for scores"),
        ({"facts": {}}, "facts is incomplete"),
        ({"facts": {"light": "dim", "sky": "blue"}}, "facts.sky is unknown"),
        ({"facts": []}, "not a request for scores|incomplete"),
        ({"more": 1}, "a rollout has facts, frames, group"),
    ],
)
def test_bad_requests_are_refused(grey: Grey, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_rollouts(changed(grey(1)[0], **fields))


def test_facts_are_checked(right: Rollout) -> None:
    facts = json.loads(bytes(encode_rollouts("say", [right])[1]))["rollouts"][0]["facts"]
    first, second = facts["people"]
    for wrong, message in (
        ({"background": 5}, "facts.background=5 must be of type str"),
        ({"people": []}, "give at least one person"),
        ({"people": [first, first]}, "each a place of their own"),
        ({"people": [first | {"place": "middle"}]}, "1 people for 2 references"),
        ({"people": [first | {"place": "above"}, second]}, "place 'above' is unknown"),
        ({"people": [first | {"appearance": [float("nan")]}, second]}, "must be a finite number"),
        ({"people": [first | {"appearance": ["much"]}, second]}, "must be of type float"),
    ):
        with pytest.raises(InputError, match=message):
            decode_rollouts(changed(right, facts=facts | wrong))


def test_facts_of_another_reader_are_the_servers_error(right: Rollout, asked: Scene) -> None:
    assert right.facts is not None
    facts = replace(right.facts, background="sky")
    video = replace(right, frames=render_scenes([asked]).frames[0], facts=facts)
    with (
        serving(PromptGuard()) as server,
        pytest.raises(RewardError, match="500 InputError: background 'sky' is unknown"),
    ):
        RemoteReward(server.url, "prompt", pause=9).score([video])


@pytest.mark.parametrize("body", [b"", b"\0" * 8, b"\xff" * 64, (4).to_bytes(8, "little") + b"nope"])
def test_bytes_that_are_no_request(body: bytes) -> None:
    with pytest.raises(InputError, match="request"):
        decode_rollouts(body)


def ask(server: RewardServer, method: str, path: str, **headers: str) -> tuple[int, Any]:
    """A bare request of one byte; what is no JSON is answered as it is."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=100)
    connection.putrequest(method, path)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(b"x" if "Content_Length" in headers else None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content[:1] == b"{" else content.decode()


@pytest.mark.timing
def test_the_server_limits_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SILENCE", 1.0)
    with serving(Say(groups), max_body=100) as server:
        assert ask(server, "GET", "/") == (200, {"terms": ["say"]})
        assert ask(server, "POST", "/else", Content_Length="1")[0] == 404
        assert ask(server, "POST", "/score")[0] == 411
        assert ask(server, "POST", "/score", Transfer_Encoding="chunked")[0] == 411
        assert ask(server, "POST", "/score", Content_Length="9" * 18)[0] == 413
        assert ask(server, "POST", "/score", Content_Length="9" * 20)[0] == 413
        for wrong in ("-5", "9" * 5000):  # no HTTP
            assert ask(server, "POST", "/score", Content_Length=wrong)[0] == 400
        assert ask(server, "GET", "/score")[0] == 404
        status, content = ask(server, "POST", "/score", Content_Length="1")
        assert status == 400 and "a request of 1 bytes" in content["error"]
        with pytest.raises(ResourceError, match="choose another"):
            RewardServer([Say(groups)], port=server.port)


@pytest.mark.timing
def test_who_falls_silent_is_let_go_and_keeps_no_room(grey: Grey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SILENCE", 1.0)
    with serving(Say(groups), waiting=1, patience=0.0) as server:
        status, content = ask(server, "POST", "/score", Content_Length="100")
        assert status == 503 and "nothing came for 1 s" in content["error"]
        assert RemoteReward(server.url, "say", retries=0).score(grey(1)) == [0.0]


def test_slow_clients_keep_nobody_waiting(grey: Grey, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they trickle: only a complete request takes a place, and all must be there in time."""
    monkeypatch.setattr(server_module, "_READING", 1.5)
    monkeypatch.setattr(server_module, "_DRAINING", 0.5)
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with serving(Say(groups), waiting=1, patience=0.0) as server, ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection((server.host, server.port), 5)) for _ in range(8)
        ]
        for one in slow:
            one.sendall(head)
        begun = time.monotonic()
        answered: set[socket.socket] = set()
        while time.monotonic() - begun < 10 and len(answered) < len(slow):
            for one in slow:
                with suppress(OSError):
                    one.sendall(b"x")
            readable = select.select([one for one in slow if one not in answered], [], [], 0.2)[0]
            for one in readable:
                assert one.recv(4096).startswith(b"HTTP/1.1 503")
                answered.add(one)
            if time.monotonic() - begun < 1:
                assert RemoteReward(server.url, "say", retries=0).score(grey(1)) == [0.0]
        assert len(answered) == len(slow)


def test_who_never_ends_the_head_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEAD", 0.5)
    with serving(Say(groups)) as server:
        for begin in (b"", b"POST /sco", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"):
            with socket.create_connection((server.host, server.port), 10) as client:
                client.sendall(begin)
                told = b""
                while part := client.recv(4096):
                    told += part
                assert told.count(b"HTTP/1.1") == begin.count(b"\r\n\r\n")


def test_what_memory_does_not_hold_is_read_later(grey: Grey) -> None:
    """Three times as many requests as fit: all are answered in the end."""
    held = Held()
    body = b"".join(encode_rollouts("say", grey(1)))
    with (
        serving(held, waiting=2, max_body=len(body)) as server,
        ThreadPoolExecutor(6) as pool,
    ):
        asked = [
            pool.submit(RemoteReward(server.url, "say", retries=0, max_body=len(body)).score, grey(1))
            for _ in range(6)
        ]
        assert held.inside.wait(20)
        held.go.set()
        assert [one.result() for one in asked] == [[0.0]] * 6


def test_the_log_holds_nothing_that_a_terminal_obeys() -> None:
    import logging

    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    with serving(Say(groups)) as server:
        loggers = [logging.getLogger(name) for name in ("uvicorn.access", "uvicorn.error")]
        handler = Lines()
        for logger in loggers:
            logger.addHandler(handler)
        try:
            for target in (b"/\x1b[31m", b"/a?\x1b]0;x\x07", b"/%1b%5b31m?%1b", b"/\x9b31m", b"/\x80?\xff"):
                with socket.create_connection((server.host, server.port), 5) as client:
                    client.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    assert client.recv(4096).startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
            logging.getLogger("uvicorn.access").info("%s", "\x1b[31m\x9b\n")
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
    assert len(lines) >= 5
    assert all(line.isprintable() for line in lines), lines


def test_who_leaves_while_others_are_scored_makes_room(grey: Grey) -> None:
    held = Held()
    with serving(held, waiting=2, patience=250.0) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(RemoteReward(server.url, "say").score, grey(1))
        assert held.inside.wait(250)
        with pytest.raises(RewardError, match="in 1 tries .*timed out"):
            RemoteReward(server.url, "say", timeout=0.2, retries=0).score(grey(1))
        third = pool.submit(RemoteReward(server.url, "say", retries=0).score, grey(1))
        fourth = pool.submit(RemoteReward(server.url, "say", retries=0).score, grey(1))
        assert not wait([first, third, fourth], timeout=0.3).done
        held.go.set()
        assert first.result() == third.result() == fourth.result() == [0.0]
        assert held.calls == 3


def test_a_reward_that_would_end_its_thread_ends_nothing(grey: Grey) -> None:
    with serving(Say(lambda _: sys.exit())) as server:
        for _ in range(2):
            with pytest.raises(RewardError, match="500 RuntimeError: its thread has died of SystemExit"):
                RemoteReward(server.url, "say", pause=9).score(grey(1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reward_that_hangs_does_not_keep_the_server(grey: Grey) -> None:
    held = Held()
    with ThreadPoolExecutor() as pool:
        with serving(held) as server:
            first = pool.submit(RemoteReward(server.url, "say", retries=0).score, grey(1))
            assert held.inside.wait(250)
        with pytest.raises(RewardError, match="503 the server ends"):  # a trainer tries again
            first.result()
        held.go.set()


# ---- the command


def test_without_fastapi_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, server_module.__name__)
    assert main(["train", "serve-rewards", "--recipe", "any"]) == 1
    assert "pip install 'igrpo-sdk[serve]'" in capsys.readouterr().err


def test_the_command_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "serve-rewards", "--help"]) == 0
    assert "--recipe" in capsys.readouterr().out


def stop_when(server: RewardServer, scores: list[Any], count: int) -> None:
    """End a server once there are as many scores."""
    while len(scores) < count:
        time.sleep(0.01)
    server.shutdown()


def test_a_recipe_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: Rollout) -> None:
    """The whole way: recipe, server, client."""
    monkeypatch.delenv(TOKEN, raising=False)
    recipe = tmp_path / "rewards.yaml"
    recipe.write_text("rewards:\n  motion: {floor: 0.001}\n", "utf-8")
    started: list[RewardServer] = []

    def serve(server: RewardServer) -> None:
        started.append(server)
        threading.Thread(target=stop_when, args=(server, scores, len(scores) + 1)).start()
        threading.Thread(
            target=lambda: scores.append(RemoteReward(server.url, "motion").score([right]))
        ).start()
        serve_forever(server)

    scores: list[Any] = []
    serve_forever = RewardServer.serve_forever
    monkeypatch.setattr(RewardServer, "serve_forever", serve)
    serve_rewards(str(recipe), port=0)
    assert scores == [[0.0]] and started[0].url.startswith("http://127.0.0.1:")
    with pytest.warns(UserWarning, match=f"everybody who can reach 0.0.0.0 .*{TOKEN}"):
        serve_rewards(str(recipe), host="0.0.0.0", port=0)
    recipe.write_text("kind: rewards\nrewards: {remote: [{url: 'http://a', term: faces}]}\n", "utf-8")
    with pytest.raises(InputError, match="take them out"):
        serve_rewards(str(recipe))
    recipe.write_text("kind: rewards\n", "utf-8")
    with pytest.raises(InputError, match="no group 'rewards'"):
        read_config(str(recipe))
