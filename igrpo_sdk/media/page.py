"""HTML pages from templates: one base, everything inside, nothing that a user wrote taken for markup."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Embedded", "data_address", "embed_figure", "embed_picture", "render_page"]

_BASE = Path(__file__).parent.parent / "assets" / "pages"


class Embedded(NamedTuple):
    """A picture inside a page: its data: address, and its width and height in pixels."""

    address: str
    width: int
    height: int


def render_page(template: str, folder: Path = _BASE, **values: Any) -> str:
    """A whole HTML document from a template that extends base.html.

    Args:
        template: the name of its file.
        folder: where the file is; base.html is found from everywhere.
        values: what the template names. Text is escaped. Numbers are written by the filter `number`:
            `{{ x|number }}` with three decimals, `{{ x|number("+") }}` with a sign, a dash for None.
    """
    pages = Environment(
        loader=FileSystemLoader([folder, _BASE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["number"] = _number
    return pages.get_template(template).render(values) + "\n"


def data_address(content: bytes, kind: str) -> str:
    """A file's content as an address that holds it; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def embed_picture(pixels: NDArray[np.uint8], side: int, kind: str = "jpeg") -> Embedded:
    """A picture uint8 (H, W, 3) as a JPEG or PNG file, its longer side at most `side` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, kind, quality=85)
    return Embedded(data_address(file.getvalue(), f"image/{kind}"), *picture.size)


def embed_figure(figure: Any, dpi: int) -> str:
    """The address of a matplotlib figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return data_address(file.getvalue(), "image/png")


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}z.3f}"
