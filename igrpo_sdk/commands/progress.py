"""The progress bar of the commands that take long."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from igrpo_sdk.sampling import Progress

__all__ = ["ProgressBar"]


class ProgressBar:
    """A bar on the terminal with the phase, the step and the time left; none where stderr is a file."""

    def __enter__(self) -> ProgressBar:
        from tqdm import tqdm

        self._bar = tqdm(disable=None, leave=False, unit="step")
        self._phase = ""
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, progress: Progress) -> None:
        """Show where the work is; a new phase starts a new estimate."""
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._bar.reset(total=progress.total)
            self._bar.set_description(progress.phase)
        self._bar.update(progress.step - self._bar.n)
