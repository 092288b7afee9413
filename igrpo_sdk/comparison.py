"""`Comparison`: the same references, prompt and seed without and with an adapter, as a file to look at."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from igrpo_sdk.errors import DependencyError, InputError
from igrpo_sdk.identity.packs import name_pack
from igrpo_sdk.media.decoding import SUFFIXES
from igrpo_sdk.media.files import check_output_path, write_text
from igrpo_sdk.media.page import data_address, embed_figure, embed_picture, render_page
from igrpo_sdk.media.video import IdentityVideo
from igrpo_sdk.references import Reference

if TYPE_CHECKING:
    from igrpo_sdk.identity.report import IdentityReport

__all__ = ["COMPARISON_SUFFIXES", "Comparison"]

COMPARISON_SUFFIXES = (".html", *SUFFIXES)
"""The file types that a comparison is written as."""

_GAP = 8  # white pixels between the two
_REFERENCE_SIDE = 160  # pixels, the longer side of a reference on a page
# Numbers of `IdentityReport.summary`, what a page calls them, and whether more (1) or less (-1) is better.
_NUMBERS = (
    ("mean", "similarity, mean over people", 1),
    ("worst", "similarity of the worst person", 1),
    ("recognition", "recognised, share of frames", 1),
    ("coverage", "seen, share of frames", 1),
    ("margin", "margin to the other references", 1),
    ("confusion", "confusion with the others' faces", -1),
    ("copy_paste", "copied from the reference", -1),
    ("switches", "identity switches", -1),
    ("head_count_error", "head-count error", -1),
    ("motion", "motion", 0),
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two videos from the same noise: of the base, and `aligned` with its adapter. Both have reports if they
    were asked for. `references`: one picture of each person.
    """

    base: IdentityVideo
    aligned: IdentityVideo
    references: tuple[Reference, ...]

    def __post_init__(self) -> None:
        """Refuse videos that could not be put beside each other."""
        shapes = self.base.frames.shape, self.aligned.frames.shape
        if shapes[0] != shapes[1]:
            raise InputError(
                f"frames: shapes {shapes[0]} and {shapes[1]} cannot be compared; make them alike"
            )

    def side_by_side(self) -> IdentityVideo:
        """One video, the base on the left, the aligned one on the right, with the settings of both."""
        gap = np.full((*self.base.frames.shape[:2], _GAP, 3), 255, np.uint8)
        frames = np.concatenate([self.base.frames, gap, self.aligned.frames], axis=2)
        settings = {"left": self.base.settings, "right": self.aligned.settings}
        return IdentityVideo(frames, self.base.fps, settings, self.warnings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of both videos, each once."""
        return tuple(dict.fromkeys([*self.base.warnings, *self.aligned.warnings]))

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write both beside each other, as a video (.mp4, .webm, .gif) or as a page (.html) that needs no
        other file: videos, references, numbers, and plots where matplotlib is there. Returns the path.

        Raises what `IdentityVideo.save` does.
        """
        target = check_output_path(path, overwrite, COMPARISON_SUFFIXES)
        if target.suffix.lower() != ".html":
            return self.side_by_side().save(target, overwrite)
        write_text(target, self.page(), overwrite)
        return target

    def page(self) -> str:
        """The page, a whole HTML document."""
        settings, adapter = self.aligned.settings, self.aligned.settings.get("adapter") or {}
        facts = {
            "model": self.base.settings.get("model"),
            "adapter": adapter.get("name"),
            "scale": adapter.get("scale"),
            "seed": self.base.settings.get("seed"),
        }
        both = {"base": self.base, "aligned": self.aligned}
        base, aligned = self.base.report, self.aligned.report
        numbers = {}
        if base and aligned:
            numbers = {
                "pack": name_pack(base.analyzer),
                "threshold": (base if base.head_count_error else aligned).threshold_words,
                "rows": _rows(base, aligned),
                "plots": {name: _plot(video) for name, video in both.items()},
            }
        return render_page(
            "compare.html",
            prompt=settings.get("prompt", ""),
            refined=settings.get("refined_prompt"),
            facts=", ".join(f"{name} {value}" for name, value in facts.items()),
            warnings=self.warnings,
            references=[embed_picture(one.image, _REFERENCE_SIDE, "png") for one in self.references],
            videos={name: _file(video) for name, video in both.items()},
            numbers=numbers,
        )


def _file(video: IdentityVideo) -> str:
    """The address of a video that plays in the page."""
    with tempfile.TemporaryDirectory() as folder:
        return data_address(video.save(Path(folder) / "video.mp4").read_bytes(), "video/mp4")


def _plot(video: IdentityVideo) -> dict[str, str]:
    """The address of the picture of a report, or why there is none."""
    from igrpo_sdk.identity.plot import draw_report

    assert video.report is not None
    try:
        return {"address": embed_figure(draw_report(video.report, video.frames), 100)}
    except DependencyError as error:
        return {"address": "", "missing": str(error)}


def _rows(base: IdentityReport, aligned: IdentityReport) -> list[dict[str, Any]]:
    """The numbers of both reports, and their differences; of one pair of videos none of them is a verdict."""
    left, right = base.summary(), aligned.summary()
    rows = [_row(words, left[key], right[key], better) for key, words, better in _NUMBERS]
    people = zip(base.people, aligned.people, strict=True)
    return rows + [_row(f"similarity of {one.name}", one.mean, other.mean, 1) for one, other in people]


def _row(words: str, base: float | None, aligned: float | None, better: int) -> dict[str, Any]:
    """One number of both, and the difference where both have it."""
    difference = None if base is None or aligned is None else aligned - base
    return {"words": words, "base": base, "aligned": aligned, "difference": difference, "better": better}
