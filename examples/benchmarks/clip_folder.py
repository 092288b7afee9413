"""A folder of clips a benchmark made: what `generate` leaves and `measure` reads, one clip at a time.

Of each clip the judged frames are kept, lossless, in one PNG (frames one under another), and a JSON file
with everything else. The JSON is written last: a clip without it is made again, so a killed run goes on
where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.media.files import make_folder, write_json, written_whole

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """One stored clip: its judged frames uint8 (N, H, W, 3) and its facts (plain values)."""

    frames: Frames
    facts: Mapping[str, Any]


class ClipFolder:
    """Clips by number, under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def missing(self, count: int) -> list[int]:
        """Which of the clips 0 to count - 1 are not complete."""
        return [index for index in range(count) if not self._complete(index)]

    def write(self, index: int, frames: Frames, facts: Mapping[str, Any]) -> None:
        """Store a clip, its picture first; notes of an older one go. Raises ResourceError if the disk
        refuses.
        """
        picture = self._path(index, ".png")
        count, height, width, channels = frames.shape
        make_folder(picture)
        with written_whole(picture, overwrite=True) as partial:
            for stale in self.folder.glob(f"{index:04d}.*json"):
                stale.unlink()
            Image.fromarray(frames.reshape(count * height, width, channels)).save(partial)
        write_json(self._path(index, ".json"), {"num_frames": count, **facts})

    def read(self, index: int) -> Clip:
        """A stored clip; InputError when it is not there, WeightsError when its files are damaged."""
        if not self._complete(index):
            raise InputError(f"clip {index} is missing in {self.folder}: run the stage 'generate' to its end")
        try:
            facts = json.loads(self._path(index, ".json").read_text(encoding="utf-8"))
            strip = np.asarray(Image.open(self._path(index, ".png")).convert("RGB"))
            return Clip(strip.reshape(facts["num_frames"], -1, strip.shape[1], 3), facts)
        except (OSError, ValueError, KeyError) as error:
            remedy = "delete it and generate again"
            raise WeightsError(f"clip {index} in {self.folder} is damaged ({error}): {remedy}") from None

    def note(self, index: int, name: str, content: Any) -> None:
        """Store plain values about a clip, such as what the judge saw, until the clip is written anew."""
        write_json(self._path(index, f".{name}.json"), content)

    def noted(self, index: int, name: str) -> Any:
        """What `note` stored, or None."""
        try:
            return json.loads(self._path(index, f".{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _complete(self, index: int) -> bool:
        return self._path(index, ".json").is_file() and self._path(index, ".png").is_file()

    def _path(self, index: int, ending: str) -> Path:
        return self.folder / f"{index:04d}{ending}"
