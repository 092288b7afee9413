"""`python -m igrpo_sdk.training world --recipe ...`: `igrpo train`, for launchers that start a module."""

from __future__ import annotations

import sys

from igrpo_sdk.commands.dispatch import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
