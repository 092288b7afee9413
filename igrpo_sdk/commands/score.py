"""`igrpo score`: who is in a video, of any generator, and how much like themselves."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from igrpo_sdk.commands.options import named_pictures
from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.analyzer import FaceAnalyzer
from igrpo_sdk.identity.measuring import measure
from igrpo_sdk.identity.packs import name_pack
from igrpo_sdk.identity.people import find_people
from igrpo_sdk.identity.plot import PLOT_SUFFIXES
from igrpo_sdk.identity.report import IdentityReport
from igrpo_sdk.media.decoding import sample_frames
from igrpo_sdk.media.files import check_output_path
from igrpo_sdk.reading import shortened
from igrpo_sdk.references import load_people

__all__ = ["score"]

_COLUMNS = {
    "similarity": "mean",
    "seen": "coverage",
    "recognised": "recognition",
    "margin": "margin",
    "confusion": "confusion",
    "copy-paste": "copy_paste",
    "at place": "owned",
}


def score(
    video: Path,
    /,
    *,
    ref: list[str],
    json: bool = False,
    plot: Path | None = None,
    pack: str = "tiny",
    places: str | None = None,
    face_index: str | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    overwrite: bool = False,
) -> None:
    """Measure who is in a video, how much like themselves, and for how long.

    Args:
        video: A .mp4, .mov, .m4v, .webm, .mkv or .gif file, of any program. Of a long one every second,
            fourth, ... frame is measured.
        ref: A picture of a person to look for; once for each person. A name can stand before it, as in
            ann=ann.jpg.
        json: Print the whole report as JSON instead of a table.
        plot: Also draw the report: .png, .svg or .pdf.
        pack: "tiny" for rendered people, a folder with a pack of insightface models, or one of insightface's
            own, such as buffalo_l.
        places: Where each person should be, in the order of the pictures, such as left,right.
        face_index: Which face of each picture is meant, counted from 0 at the left, such as 0,1.
        device: "cpu", or "cuda" with onnxruntime-gpu.
        overwrite: Replace the plot if it exists.

    Example:
        igrpo score talk.mp4 --ref ann=ann.png --ref bob=bob.png --plot report.png
    """
    if plot is not None:
        check_output_path(plot, overwrite, PLOT_SUFFIXES)
    pictures = load_people(named_pictures(ref))
    chosen = None if face_index is None else _numbers(face_index)
    sampled = sample_frames(video)
    told = [*sampled.warnings]
    if sampled.step > 1:
        told.append(f"{len(sampled.frames)} of {sampled.total} frames are measured, one in {sampled.step}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        analyzer = FaceAnalyzer.load(pack, device)
    told += [str(warning.message) for warning in caught]
    people = find_people(pictures, analyzer, chosen)
    report = measure(
        sampled.frames,
        people,
        analyzer,
        places=None if places is None else places.split(","),
        frame_numbers=sampled.numbers,
        warnings=told,
    )
    for warning in report.warnings:
        print(f"igrpo: warning: {warning}", file=sys.stderr)
    print(report.to_json() if json else "\n".join(_table(report)))
    if plot is not None:
        report.plot(plot, sampled.frames, people, overwrite)


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(
            f"face_index: {shortened(text)}; give a whole number for each picture, such as 0,1"
        ) from None


def _table(report: IdentityReport) -> Iterator[str]:
    """A report for people to read."""
    names = [person.name for person in report.people]
    width = max(len("person"), *map(len, names))
    columns = {title: key for title, key in _COLUMNS.items() if key != "owned" or report.people[0].place}
    yield "  ".join([f"{'person':{width}}", *(f"{title:>10}" for title in columns)])
    for name, person in zip(names, report.people, strict=True):
        values = [person.summary()[key] for key in columns.values()]
        cells = [f"{'-' if value is None else format(value, '.2f'):>10}" for value in values]
        yield "  ".join([f"{name:{width}}", *cells])
    facts = report.summary()
    yield f"mean {facts['mean']:.2f}, worst {names[facts['worst_person']]} {facts['worst']:.2f}, " + (
        f"worst frame {facts['worst_frame']}, identity switches {facts['switches']}, "
        f"head-count error {facts['head_count_error']:.2f}"
    )
    motion = "" if facts["motion"] is None else f", motion {facts['motion']:.4f}"
    yield f"{facts['frames']} frames{motion}; faces found by {name_pack(report.analyzer)}"
    if report.head_count_error:
        yield f"{report.threshold_words}: a high similarity does not say that only these people are seen"
