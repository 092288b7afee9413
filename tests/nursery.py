"""New processes without the seconds that importing torch, diffusers and this package takes.

`python ARGUMENTS...` is run in a process that is forked from the nursery, which is forked itself from the
test process before its first test: everything is imported and nothing was used yet. So what runs there is as
fresh as in a new interpreter, but for what happens during imports. Tests for which those matter (the hash
seed, the time of an import, modules that must not be loaded, programs that start Python) start Python.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_POLL = 0.01


class Nursery:
    """Starts processes and knows how they ended. One for each test process."""

    def __init__(self) -> None:
        """Fork it. Call before the first test, with everything imported that is to be there."""
        from diffusers import DiffusionPipeline, UniPCMultistepScheduler, WanVACEPipeline  # noqa: F401
        from transformers import UMT5EncoderModel  # noqa: F401

        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        self.owner = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _serve(theirs)
        theirs.close()
        self._socket = ours
        self._received = b""
        self._ended: dict[int, int] = {}

    def start(
        self,
        words: Sequence[str],
        folder: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start `python WORDS...`; what it prints goes to files in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.out")))
        out, err = folder / f"{number}.out", folder / f"{number}.err"
        where = str(cwd or Path.cwd())
        request = [list(map(str, words)), where, dict(os.environ if env is None else env), str(out), str(err)]
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        out.touch()
        while "pid" not in (message := self._message(None) or {}):
            pass
        return Child(self, int(message["pid"]), list(words), out, err)

    def _message(self, timeout: float | None) -> dict[str, Any] | None:
        """What it says next, None if that is nothing for `timeout` seconds; ends are kept."""
        while b"\n" not in self._received:
            if not select.select([self._socket], [], [], timeout)[0]:
                return None
            more = self._socket.recv(65536)
            assert more, "the nursery has died"
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "ended" in message:
            self._ended[message["ended"]] = message["code"]
        return message

    def code(self, pid: int, timeout: float) -> int | None:
        """The exit code of a child, negative for a signal; None if it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while pid not in self._ended:
            if self._message(max(0.0, deadline - time.monotonic())) is None:
                return None
        return self._ended[pid]

    def close(self) -> None:
        """End it, and all that still run."""
        if os.getpid() == self.owner:
            self._socket.close()
            os.waitpid(self.pid, 0)


class Child:
    """A process, as `subprocess.Popen` has it."""

    def __init__(self, nursery: Nursery, pid: int, words: list[str], out: Path, err: Path) -> None:
        self.pid, self._nursery, self._words, self._out, self._err = pid, nursery, words, out, err

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text("utf-8")

    @property
    def stderr(self) -> str:
        """What it has complained of so far."""
        return self._err.read_text("utf-8") if self._err.exists() else ""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._nursery.code(self.pid, 0.0)

    def wait(self, timeout: float = 280.0) -> int:
        """Wait for its end; its exit code."""
        code = self._nursery.code(self.pid, timeout)
        if code is None:
            self.kill()
            raise subprocess.TimeoutExpired(self._words, timeout, self.stdout, self.stderr)
        return code

    def kill(self) -> None:
        """End it without ado, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def run(
    nursery: Nursery, words: Sequence[str], folder: Path, **where: Any
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of `python WORDS...`, with its output."""
    child = nursery.start(words, folder, **where)
    code = child.wait()
    return subprocess.CompletedProcess(list(words), code, child.stdout, child.stderr)


def pair(nursery: Nursery, words: Sequence[str], folder: Path, **where: Any) -> list[Child]:
    """Two processes of one group, as `torchrun --nproc_per_node 2 WORDS...` starts them.

    Without its watch over them: one of two is not ended because the other was.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    return [
        nursery.start(
            words,
            folder,
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0"},
            **where,
        )
        for rank in ("0", "1")
    ]


def _serve(connection: socket.socket) -> None:
    """What the nursery does until its owner has gone."""
    atexit._clear()
    running: set[int] = set()
    lines = connection.makefile("rw", encoding="utf-8")

    def say(**message: Any) -> None:
        lines.write(json.dumps(message) + "\n")
        lines.flush()

    try:
        while True:
            if select.select([connection], [], [], _POLL if running else None)[0]:
                line = lines.readline()
                if not line:
                    break
                pid = os.fork()
                if pid == 0:
                    os.close(connection.fileno())
                    _live(*json.loads(line))
                running.add(pid)
                say(pid=pid)
            for pid in list(running):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    running.discard(pid)
                    say(ended=pid, code=os.waitstatus_to_exitcode(status))
    except (OSError, KeyboardInterrupt):
        pass
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _live(words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """Be `python WORDS...`."""
    code = 1
    try:
        for number, path in ((1, out), (2, err)):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "rww"[number], 1) for number in range(3))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        warnings.resetwarnings()
        warnings.simplefilter("default")
        code = _program(words)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _program(words: list[str]) -> int:
    """Run a program, given as Python takes it; its exit code."""
    kind, *rest = words
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    try:
        if kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            sys.path.insert(0, "")
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            sys.argv = rest
            sys.path.insert(0, os.getcwd())
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(kind).resolve().parent))
            runpy.run_path(kind, run_name="__main__")
        return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
