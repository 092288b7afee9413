"""Patterns of a file mean what they mean in `re`, and are matched in linear time or refused."""

from __future__ import annotations

import random
import re
import time

import pytest

from igrpo_sdk.adapters.patterns import Pattern, Steps
from igrpo_sdk.errors import InputError

PIECES = (
    "a",
    "b",
    ".",
    r"\d",
    "(",
    ")",
    "|",
    "*",
    "+",
    "?",
    "{2}",
    "{1,2}",
    "{1,}",
    "[ab]",
    "[^a]",
    "^",
    "$",
)


def test_it_agrees_with_re() -> None:
    """On every random expression that both read, and every text of up to five characters that is drawn."""
    rng, compared = random.Random(0), 0
    for _ in range(6000):
        text = "".join(rng.choice((*PIECES, "(?:", r"\.")) for _ in range(rng.randrange(1, 9)))
        try:
            ours = Pattern(text)
        except InputError:
            continue
        theirs = re.compile(text)
        for _ in range(6):
            word = "".join(rng.choice("ab1.") for _ in range(rng.randrange(6)))
            assert ours.fullmatch(word) == bool(theirs.fullmatch(word)), (text, word)
            compared += 1
    assert compared > 3000


@pytest.mark.parametrize("text", ["(b+)+!", "([a-z0-9_.]+)+!", "(a|a)*c", "(((a|b)*)*)*c", "(a?){50}a{50}!"])
def test_what_never_ends_in_re_ends_here(text: str) -> None:
    begun = time.process_time()
    pattern = Pattern(text)
    assert not any(pattern.fullmatch(word * 300) for word in ("a", "b", "ab"))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x^a",
            "a$b",
            "(?=a)b",
            r"(a)\1",
            r"\bx",
            "a**",
            "a{999}",
            "a{2,1}",
            "[z-a]",
            "[",
            "\\",
            "(a",
            "a)",
            "*",
        ),
        *("^*", "(?P<x>a)", "(" * 60 + ")" * 60, "((a{60}){60}){60}", "a" * 30_000),
    ],
)
def test_what_needs_more_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match="pattern .*(which is not read; name the modules|which is the limit)"
    ) as error:
        Pattern(text)
    assert len(str(error.value)) < 250


def test_the_patterns_of_a_file_share_their_steps() -> None:
    steps = Steps(2000)
    patterns = [Pattern("(a|b)*c", steps) for _ in range(3)]
    with pytest.raises(InputError, match="too many steps"):
        [pattern.fullmatch("ab" * 600) for pattern in patterns]
