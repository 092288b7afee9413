"""Regular expressions from a file, matched in time that grows linearly with the text.

Python's `re` may take for ever on an expression such as `(b+)+!`. PEFT's settings hold expressions, and files
of settings come from others. Here is the part of the language that names of modules need: characters, `.`,
classes such as `[a-z]` and `\\d`, groups, `|`, the repeats `*`, `+`, `?` and `{2,3}`, and `^` and `$` at the
ends. It means what it means in `re`. All states that the text may have led to are followed at once (Thompson,
1968), so that nothing is tried twice. What needs more, such as a lookahead or a reference to a group, is
refused, and so is what takes too many steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from igrpo_sdk.errors import InputError
from igrpo_sdk.reading import shortened

__all__ = ["Pattern", "Steps"]

MAX_LENGTH = 20_000
"""Longest expression, in characters: a list of all modules of a large model has about as many."""
MAX_STATES = 40_000
MAX_STEPS = 3_000_000
"""Most steps for all matches of a file: some seconds."""
_MAX_REPEAT = 64
_MAX_NESTING = 50

_ATOM = re.compile(
    r"(?P<escape>\\(?:[dDwWsS]|[^\w\s]))"
    r"|(?P<set>\[\^?\]?(?:\\[dDwWsS]|\\[^\w\s]|[^\]\[\\])*\])"
    r"|(?P<plain>[^\\^$*+?{}\[\]|()])",
    re.DOTALL,
)
_REPEAT = re.compile(r"(?P<sign>[*+?])|\{(?P<least>\d{1,3})(?:(?P<comma>,)(?P<most>\d{1,3})?)?\}")

_Test = Callable[[str], bool]


class Steps:
    """How many steps all patterns of one file may still take."""

    def __init__(self, left: int = MAX_STEPS) -> None:
        """Begin with `left` steps."""
        self.left = left

    def take(self, count: int) -> None:
        """Count steps; `InputError` when there are none left."""
        self.left -= count
        if self.left < 0:
            raise InputError("its patterns take too many steps to match; give fewer or simpler ones")


class Pattern:
    """An expression that `fullmatch`es texts in linear time."""

    def __init__(self, text: str, steps: Steps | None = None) -> None:
        """Read the expression; `InputError` for one that is none, or that is not of the part described above.

        `steps`: those of the file, if it has several patterns. `alternatives`: how many it has, apart from
        those in groups, and `anchored`: how many of them begin with `^`.
        """
        self.text = self._whole = text
        self.steps = steps or Steps()
        if len(text) > MAX_LENGTH:
            raise InputError(f"pattern {shortened(text)}: over {MAX_LENGTH:,} characters, which is the limit")
        self._at = self._depth = 0
        self._at_begin = True  # whether nothing lies before what is read next, in the text that is matched
        self.alternatives = self.anchored = 0
        self._tests: list[_Test | None] = []  # of each state: what the next character must be; None: nothing
        self._next: list[list[int]] = []  # of each state: those that follow
        start, ends = self._either()
        if self._at < len(text):
            raise self._refused("an unmatched )")
        self._last = self._state(None)
        self._join(ends, self._last)
        self._first = start
        self._known: dict[frozenset[int], dict[str, frozenset[int]]] = {}
        self._begin = self._closed([start])

    def fullmatch(self, text: str) -> bool:
        """Whether the whole of `text` is what the expression describes."""
        now = self._begin
        for character in text:
            onward = self._known.setdefault(now, {})
            if (after := onward.get(character)) is None:
                reached = [
                    state
                    for one in now
                    if (test := self._tests[one]) is not None and test(character)
                    for state in self._next[one]
                ]
                self.steps.take(len(now))
                after = onward[character] = self._closed(reached)
            self.steps.take(1)
            now = after
            if not now:
                return False
        return self._last in now

    # ---- from the text to states; a piece is (its first state, those states that shall lead on)

    def _either(self) -> tuple[int, list[int]]:
        """`a|b|c`."""
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise self._refused(f"groups in over {_MAX_NESTING} groups")
        begin, starts, ends = self._at_begin, list[int](), list[int]()
        while not starts or self._sees("|"):
            self._at_begin = begin
            if self._depth == 1:
                self.alternatives += 1
                self.anchored += self.text.startswith("^", self._at)
            start, more = self._sequence()
            starts.append(start)
            ends += more
        self._depth -= 1
        if len(starts) == 1:
            return starts[0], ends
        fork = self._state(None)
        self._next[fork] = starts
        return fork, ends

    def _sequence(self) -> tuple[int, list[int]]:
        """`abc`, each repeated or not."""
        start = self._state(None)
        ends = [start]
        while self._at < len(self.text) and self.text[self._at] not in "|)":
            begun = self._at
            if self.text[begun] in "^$":
                self._end_of_text()
                continue
            first, last = self._piece()
            self._at_begin = False
            if found := _REPEAT.match(self.text, self._at):
                first, last = self._repeated(begun, found, first, last)
            self._join(ends, first)
            ends = last
        return start, ends

    def _piece(self) -> tuple[int, list[int]]:
        """A character, a class, or a group."""
        if self._sees("("):
            if not self._sees("?:") and self.text[self._at : self._at + 1] == "?":
                raise self._refused("a group that begins with (?, other than (?:")
            piece = self._either()
            if not self._sees(")"):
                raise self._refused("an unmatched (")
            return piece
        found = _ATOM.match(self.text, self._at)
        if found is None:
            raise self._refused("a sign")
        self._at = found.end()
        if found["plain"]:
            character = found["plain"]
            test: _Test = (lambda one: one != "\n") if character == "." else character.__eq__
        else:
            try:
                single = re.compile(found[0])  # of one character: nothing to try twice
            except (re.error, OverflowError, Warning) as error:
                raise self._refused(f"a class ({error})") from None
            test = lambda one: single.match(one) is not None  # noqa: E731
        state = self._state(test)
        return state, [state]

    def _end_of_text(self) -> None:
        """`^` where the text begins, `$` where it ends: both say nothing."""
        sign, after = self.text[self._at], self.text[self._at + 1 :]
        ends = not after.strip(")") or (self._depth == 1 and after[0] == "|")
        if not (self._at_begin if sign == "^" else ends):
            raise self._refused(f"{sign} inside")
        self._at += 1
        if _REPEAT.match(self.text, self._at):
            raise self._refused(f"a repeat of {sign}")

    def _repeated(
        self, begun: int, found: re.Match[str], first: int, ends: list[int]
    ) -> tuple[int, list[int]]:
        """A piece of which there are several; `begun`: where its text begins."""
        piece, least, most = self.text[begun : self._at], 0, 1
        self._at = found.end()
        if found["sign"]:
            least, endless = int(found["sign"] == "+"), found["sign"] != "?"
        else:
            least, endless = int(found["least"]), found["comma"] is not None and found["most"] is None
            most = int(found["most"] or least)
            if max(least, most) > _MAX_REPEAT or not (endless or least <= most):
                raise self._refused(f"a repeat that is none, or of over {_MAX_REPEAT}")
        if self.text[self._at : self._at + 1] == "?":  # which of several matches: all the same to us
            self._at += 1
        if _REPEAT.match(self.text, self._at) or self.text[self._at : self._at + 1] == "+":
            raise self._refused("a repeat of a repeat")
        start = self._state(None)
        last, leaving = [start], [start] if least == 0 else []
        for number in range(1, max(least, 1 if endless else most) + 1):
            if number > 1:
                first, ends = self._again(piece)
            self._join(last, first)
            last = ends
            if number >= least:
                leaving += ends
        if endless:
            self._join(last, first)
        return start, leaving

    def _again(self, piece: str) -> tuple[int, list[int]]:
        """The states of a piece once more."""
        kept, self._at, self.text = (self._at, self.text), 0, piece
        try:
            return self._piece()
        finally:
            self._at, self.text = kept

    def _state(self, test: _Test | None) -> int:
        if len(self._tests) >= MAX_STATES:
            raise self._refused("too many repeats")
        self._tests.append(test)
        self._next.append([])
        return len(self._tests) - 1

    def _join(self, ends: list[int], state: int) -> None:
        for end in ends:
            self._next[end].append(state)

    def _closed(self, states: list[int]) -> frozenset[int]:
        """Those of the states, and of those that follow without a character, that matter."""
        seen, pending, kept = set(states), list(states), []
        while pending:
            state = pending.pop()
            if self._tests[state] is not None or state == self._last:
                kept.append(state)
            else:
                new = [one for one in self._next[state] if one not in seen]
                seen.update(new)
                pending += new
        self.steps.take(len(seen))
        return frozenset(kept)

    def _sees(self, word: str) -> bool:
        """Go on behind `word` if it comes next."""
        found = self.text.startswith(word, self._at)
        self._at += len(word) if found else 0
        return found

    def _refused(self, why: str) -> InputError:
        return InputError(
            f"pattern {shortened(self._whole)}: {why} at character {self._at + 1}, which is not read; "
            "name the modules in full"
        )
