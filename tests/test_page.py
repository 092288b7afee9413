"""Pages from templates: text is no markup, what a template misses is an error, both pages have one base."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from igrpo_sdk.media.page import data_address, embed_picture, render_page


def test_a_template_is_filled_and_nothing_is_markup(tmp_path: Path) -> None:
    text = """{% extends "base.html" %}
{% block title %}{{ title }}{% endblock %}
{% block main %}<p>{{ text }} {{ 1.23456|number }} {{ -0.0001|number("+") }} {{ none|number }}</p>
{% endblock %}"""
    (tmp_path / "one.html").write_text(text, "utf-8")
    made = render_page("one.html", tmp_path, title="a & b", text="<script>'")
    assert made.startswith("<!doctype html>\n") and made.endswith("</html>\n")
    assert "<title>a &amp; b</title>" in made and "<h1>a &amp; b</h1>" in made
    assert "<p>&lt;script&gt;&#39; 1.235 +0.000 -</p>" in made
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        render_page("one.html", tmp_path, title="a")


def test_pictures_are_inside_and_no_larger_than_asked_for() -> None:
    pixels = np.zeros((30, 60, 3), np.uint8)
    for kind in ("jpeg", "png"):
        picture = embed_picture(pixels, 20, kind)
        head, _, content = picture.address.partition(",")
        assert head == f"data:image/{kind};base64" and (picture.width, picture.height) == (20, 10)
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (20, 10)
    assert embed_picture(pixels, 100).width == 60
    assert data_address(b"abc", "text/plain") == "data:text/plain;base64,YWJj"


def test_all_pages_have_one_base(root: Path) -> None:
    pages = [
        path
        for folder in ("igrpo_sdk", "training")
        for path in (root / folder).rglob("*.html")
        if path.name != "base.html"
    ]
    assert {path.name for path in pages} == {"compare.html", "report.html"}
    assert all(path.read_text("utf-8").startswith('{% extends "base.html" %}\n') for path in pages)
