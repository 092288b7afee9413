"""Processes that work beside a run, so that the thread which launches a GPU's kernels keeps the interpreter.

Nothing here imports torch: who does not need it starts without it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

__all__ = ["stop_feeding", "worker_pool"]


def worker_pool(count: int, begin: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """`count` processes that end with this one, however it ends; each calls begin(*arguments) first, if
    anything. They start now, not with their first work: importing what they need can take half a minute.
    """
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, spawn, _begin, (begin, *arguments))
    for _ in range(count):
        pool.submit(int)  # each piece of work that finds nobody idle starts one
    return pool


def stop_feeding(pool: ProcessPoolExecutor) -> None:
    """Let a pool that has lost a process be shut down.

    Python before 3.11.8 and 3.12.2 would wait for ever while it writes more than a pipe holds to processes
    that are gone (python/cpython#94777); this is what later versions do.
    """
    queue: Any = vars(pool)["_call_queue"]
    with suppress(OSError):  # a later version closes it too
        queue._reader.close()


def _begin(begin: Callable[..., None] | None, *arguments: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _end_with_parent() -> None:
    """A parent that is killed tells its workers nothing: they would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
