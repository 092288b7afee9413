"""Text folding as a SentencePiece character map: the one normaliser that a reloaded T5 tokenizer keeps.

A map is a trie over UTF-8 bytes, stored as a double array (darts-clone's unit layout: a unit holds the
label of the byte that led to it, an offset to its children, and whether a key ends there), followed by the
replacement texts. The layout is read by `Precompiled` of the `tokenizers` package and by SentencePiece.
"""

from __future__ import annotations

import string
import struct
import sys
import unicodedata
from collections.abc import Mapping

_IS_VALUE = 1 << 31
_HAS_LEAF = 1 << 8
_MAX_OFFSET = 1 << 21  # larger offsets need the layout's extended form; a few thousand keys stay far below

_TYPOGRAPHY = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u0060\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    **dict.fromkeys(
        "\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff\u00ad", ""
    ),  # invisible: joiners and selectors
}


_PUNCTUATION = frozenset(string.punctuation) - {"'"}


def folding() -> dict[str, str]:
    """Which characters are replaced by what, so that a word reads the same wherever it stands.

    Case, accents and typographic variants are taken away: a character is replaced by its compatibility
    decomposition (NFKD), case-folded and without combining marks, where that is ASCII; quotes and dashes by
    the plain ones; joiners and variation selectors by nothing. Punctuation gets a space on either side, all
    but the apostrophe.
    """
    table = {}
    for code in range(33, sys.maxunicode + 1):
        char = chr(code)
        if char.isspace() or unicodedata.category(char) in ("Cc", "Cs", "Cn", "Co"):
            continue
        parts = unicodedata.normalize("NFKD", char).casefold()
        plain = _TYPOGRAPHY.get(char, "".join(part for part in parts if not unicodedata.combining(part)))
        if plain.isascii():
            table[char] = "".join(f" {part} " if part in _PUNCTUATION else part for part in plain)
    return {char: text for char, text in table.items() if text != char}


def precompiled_charsmap(table: Mapping[str, str]) -> bytes:
    """A replacement table as a SentencePiece character map.

    Args:
        table: replacements of single characters; neither side holds a NUL character.

    Returns:
        The bytes that `tokenizers.normalizers.Precompiled` takes.
    """
    texts = bytearray()
    starts: dict[str, int] = {}
    for text in sorted(set(table.values())):
        starts[text] = len(texts)
        texts += text.encode() + b"\0"
    keys = {char.encode(): starts[text] for char, text in sorted(table.items())}
    units = _double_array(keys)
    return struct.pack(f"<{1 + len(units)}I", 4 * len(units), *units) + bytes(texts)


def _double_array(keys: Mapping[bytes, int]) -> list[int]:
    """The units of a trie over byte strings (no NUL bytes) with values below 2**31."""
    labels: dict[bytes, set[int]] = {b"": set()}  # the bytes that may follow a prefix; 0 where a key ends
    for key in keys:
        for i, byte in enumerate(key):
            labels.setdefault(key[:i], set()).add(byte)
        labels.setdefault(key, set()).add(0)
    units: dict[int, int] = {0: 0}
    todo: list[tuple[int, bytes]] = [(0, b"")]
    bases = {0}  # two nodes on one base would take each other's children for their own
    first_free = 1
    while todo:
        position, prefix = todo.pop()
        children = sorted(labels[prefix])
        while first_free in units or first_free in bases:
            first_free += 1
        base = next(
            b
            for b in range(first_free, _MAX_OFFSET)
            if b not in bases and all(b ^ c not in units for c in children)
        )
        bases.add(base)
        label = prefix[-1] if prefix else 0
        units[position] = (position ^ base) << 10 | (_HAS_LEAF if 0 in children else 0) | label
        units |= {base ^ byte: 0 for byte in children}  # taken; filled when its turn comes
        if children[0] == 0:
            units[base] = _IS_VALUE | keys[prefix]
        todo += [(base ^ byte, prefix + bytes([byte])) for byte in children if byte]
    size = (max(units) | 0xFF) + 1  # a unit's offset plus any byte stays inside
    return [units.get(position, 0) for position in range(size)]
