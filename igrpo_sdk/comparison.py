"""`Comparison`: the same references, prompt and seed without and with an adapter, as a file to look at."""

from __future__ import annotations

import base64
import html
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from igrpo_sdk.errors import DependencyError, InputError
from igrpo_sdk.media.decoding import SUFFIXES
from igrpo_sdk.media.files import check_output_path, write_text
from igrpo_sdk.media.video import IdentityVideo
from igrpo_sdk.references import Reference

if TYPE_CHECKING:
    from igrpo_sdk.identity.report import IdentityReport

__all__ = ["COMPARISON_SUFFIXES", "Comparison"]

COMPARISON_SUFFIXES = (".html", *SUFFIXES)
"""The file types that a comparison is written as."""

_GAP = 8  # white pixels between the two
_REFERENCE_SIDE = 160  # pixels, the longer side of a reference on a page
# Numbers of `IdentityReport.summary`, what a page calls them, and whether more of them is better.
_NUMBERS = (
    ("mean", "similarity, mean over people", True),
    ("worst", "similarity of the worst person", True),
    ("recognition", "recognised, share of frames", True),
    ("coverage", "seen, share of frames", True),
    ("margin", "margin to the other references", True),
    ("confusion", "confusion with the others' faces", False),
    ("copy_paste", "copied from the reference", False),
    ("switches", "identity switches", False),
    ("head_count_error", "head-count error", False),
    ("motion", "motion", True),
)
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 1rem; }
body { color: #1f2933; font: 16px/1.5 system-ui, sans-serif; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1rem; }
figure { margin: 0; }
video, .pair img { width: 100%; height: auto; }
.references { display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 1rem; }
figcaption, caption { color: #52606d; text-align: left; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; border-bottom: 1px solid #d9e2ec; }
th, td { padding: .35rem clamp(.4rem, 2vw, 1.5rem) .35rem 0; }
th[scope=row] { font-weight: 400; }
.better { color: #00613f; }
.worse { color: #a33c00; }
"""


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
        head = (
            '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>Base and aligned</title><style>{_STYLE}</style>"
        )
        body = "\n".join(self._sections())
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'

    def _sections(self) -> Iterator[str]:
        adapter = self.aligned.settings.get("adapter") or {}
        yield "<h1>Base and aligned, from the same noise</h1>"
        yield f"<p>{_text(self.aligned.settings.get('prompt', ''))}</p>"
        if self.aligned.settings.get("refined_prompt"):
            yield f"<p>refined: {_text(self.aligned.settings['refined_prompt'])}</p>"
        facts = {
            "model": self.base.settings.get("model"),
            "adapter": adapter.get("name"),
            "scale": adapter.get("scale"),
            "seed": self.base.settings.get("seed"),
        }
        yield f"<p>{', '.join(f'{name} {_text(value)}' for name, value in facts.items())}</p>"
        yield "".join(f"<p>Warning: {_text(warning)}</p>" for warning in self.warnings)
        pictures = (_picture(one, f"person {k}") for k, one in enumerate(self.references, 1))
        yield f'<div class="references">{"".join(pictures)}</div>'
        yield f'<div class="pair">{_player(self.base, "base")}{_player(self.aligned, "aligned")}</div>'
        if self.base.report and self.aligned.report:
            yield _table(self.base.report, self.aligned.report)
            yield f'<div class="pair">{_plot(self.base, "base")}{_plot(self.aligned, "aligned")}</div>'
        else:
            yield "<p>Identity was not measured.</p>"


def _text(value: object) -> str:
    """Text that is no markup."""
    return html.escape(str(value))


def _data(kind: str, content: bytes) -> str:
    """A file inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _picture(reference: Reference, name: str) -> str:
    """A reference, small."""
    image = Image.fromarray(reference.image)
    image.thumbnail((_REFERENCE_SIDE, _REFERENCE_SIDE))
    file = io.BytesIO()
    image.save(file, "png")
    source = _data("image/png", file.getvalue())
    return f'<figure><img src="{source}" alt="reference of {name}"><figcaption>{name}</figcaption></figure>'


def _player(video: IdentityVideo, name: str) -> str:
    """A video that plays in the page."""
    with tempfile.TemporaryDirectory() as folder:
        content = video.save(Path(folder) / "video.mp4").read_bytes()
    source = _data("video/mp4", content)
    attributes = f'autoplay loop muted playsinline controls aria-label="{name}"'
    return f'<figure><video {attributes} src="{source}"></video><figcaption>{name}</figcaption></figure>'


def _plot(video: IdentityVideo, name: str) -> str:
    """The picture of a report, or why there is none."""
    from igrpo_sdk.identity.plot import draw_report

    assert video.report is not None
    file = io.BytesIO()
    try:
        draw_report(video.report, video.frames).savefig(file, format="png", dpi=100)
    except DependencyError as error:
        return f"<p>{_text(error)}</p>"
    source = _data("image/png", file.getvalue())
    picture = f'<img src="{source}" alt="identity over time, {name}">'
    return f"<figure>{picture}<figcaption>{name}</figcaption></figure>"


def _table(base: IdentityReport, aligned: IdentityReport) -> str:
    """The numbers of both reports, and their differences."""
    left, right = base.summary(), aligned.summary()
    rows = [_row(words, left[key], right[key], more) for key, words, more in _NUMBERS]
    people = zip(base.people, aligned.people, strict=True)
    rows += [_row(f"similarity of {one.name}", one.mean, other.mean, True) for one, other in people]
    head = "".join(f'<th scope="col">{title}</th>' for title in ("", "base", "aligned", "difference"))
    caption = f"Faces found by pack {_text(base.analyzer)}, one person from {base.same_person:.2f} up"
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<table><caption>{caption}</caption>{body}</table>"


def _row(words: str, base: float | None, aligned: float | None, more_is_better: bool) -> str:
    """One number; one that is not defined is a dash."""
    cells = ["-" if value is None else f"{value:.3f}" for value in (base, aligned)]
    mark = ""
    if base is None or aligned is None:
        cells.append("-")
    else:
        cells.append(f"{aligned - base:+.3f}")
        if cells[0] != cells[1]:  # as shown: what rounds to nothing is no gain
            mark = "better" if (aligned > base) == more_is_better else "worse"
    row = f'<th scope="row">{_text(words)}</th><td>{cells[0]}</td><td>{cells[1]}</td>'
    return f'<tr>{row}<td class="{mark}">{cells[2]}</td></tr>'
