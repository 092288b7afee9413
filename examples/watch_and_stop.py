"""Follow the progress, and stop a video that nobody waits for any more: here after the first few steps.

python examples/watch_and_stop.py
"""

from __future__ import annotations

import threading
from pathlib import Path

from jsonargparse import auto_cli

from igrpo_sdk import Cancelled, IdentityPipeline, Progress

FACES = Path(__file__).parent / "faces"


def main() -> None:
    """Ask for a video, and cancel it from the progress callback (any thread may set the event)."""
    pipe = IdentityPipeline.from_pretrained("tiny-vace")
    stop = threading.Event()

    def watch(progress: Progress) -> None:
        print(f"{progress.phase}: {progress.step} of {progress.total}")
        if progress.phase == "sample" and progress.step >= 3:
            stop.set()

    try:
        pipe([FACES / "ann.png"], "One person nods.", seed=7, progress=watch, cancel=stop)
    except Cancelled as reason:
        print(f"stopped: {reason}")


if __name__ == "__main__":
    auto_cli(main)
