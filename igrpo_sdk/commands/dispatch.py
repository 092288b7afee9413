"""The command line: `igrpo COMMAND ...`.

A command is a typed function that an installed package names in the entry point group `igrpo_sdk.commands`; a
dot in the name is a space on the command line (`train.world` is `igrpo train world`). Its signature and
docstring are the parser: a positional-only parameter is one argument and `*args` takes all that follow, a
`bool` that is False by default is a flag, a list of strings is an option that may be repeated, one of numbers
takes several, every other parameter is an option, and a dataclass is an option for each of its fields. Its
help ends with the section `Example:` of the docstring. Options have dashes; underscores are understood too.
Nothing is imported until a command runs, so that `igrpo --help` is quick.

Exit codes: 0 done, 1 failed (one line says why; `--debug` adds the traceback), 2 bad usage, 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from igrpo_sdk.errors import Cancelled, IgrpoError
from igrpo_sdk.reading import shortened

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


__all__ = ["COMMAND_GROUP", "build_parser", "main", "run"]

COMMAND_GROUP = "igrpo_sdk.commands"
"""The entry point group that commands are found in."""

_SPINS = 4000
"""How often a thread of OpenMP (GNU's, which PyTorch uses) looks for work before it sleeps. Left to itself it
looks for milliseconds: beside other busy processes that makes a step several times slower, for nothing.
"""
_SHORT = {"output": "-o"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (by default the process's own) ask for; return the exit code.

    Threads of a command sleep instead of spinning, unless OMP_WAIT_POLICY or GOMP_SPINCOUNT says otherwise;
    a request to terminate ends it as an interrupt does.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has left, as in `igrpo --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Terminated(KeyboardInterrupt):
    """The process was asked to end: it cleans up as after an interrupt."""


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request must not break the cleaning up
    raise _Terminated


def _dispatch(words: list[str]) -> int:
    """Find the command and run it, or show the overview."""
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    commands = {entry.name.replace(".", " "): entry for entry in metadata.entry_points(group=COMMAND_GROUP)}
    if words[:1] == ["--version"]:
        print(metadata.version("igrpo-sdk"))
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(_overview(commands))
        return 0 if words else 2
    for length in range(len(words), 0, -1):
        entry = commands.get(" ".join(words[:length]))
        if entry is not None:
            return run(entry.load, " ".join(words[:length]), words[length:], debug)
    return _unknown(words, commands)


def run(load: Callable[[], Callable[..., Any]], name: str, words: Sequence[str], debug: bool = False) -> int:
    """Load a command's function, parse `words` for it, call it; return the exit code.

    The function may return an exit code of its own, or None for 0.
    """
    try:
        function = load()
        return int(_call(function, build_parser(function, name), words) or 0)
    except SystemExit as stop:  # argparse: 0 after --help, 2 after bad usage
        return stop.code if isinstance(stop.code, int) else 2
    except (KeyboardInterrupt, Cancelled) as stop:
        return _stopped(stop)
    except BrokenPipeError:
        raise
    except Exception as error:
        interrupt = _interrupt_behind(error)
        if interrupt is not None:
            return _stopped(interrupt)
        if debug:
            traceback.print_exc()
        reason = " ".join(str(error).split())
        if not isinstance(error, IgrpoError):
            reason = f"unexpected {type(error).__name__}: {reason}. --debug shows where"
        print(f"igrpo: error: {reason}", file=sys.stderr)
        return 1


def _stopped(stop: BaseException) -> int:
    """Say that a command was stopped; return the exit code."""
    terminated = isinstance(stop, _Terminated)
    word = "terminated" if terminated else "interrupted"
    print(f"igrpo: {word}; no unfinished file was left", file=sys.stderr)
    return 143 if terminated else 130


def _interrupt_behind(error: BaseException | None) -> BaseException | None:
    """The interrupt behind `error`, if there is one: compiled modules turn one into a failed import."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def build_parser(function: Callable[..., Any], name: str) -> ArgumentParser:
    """The parser of a command, from the signature and the Google-style docstring of its function."""
    import docstring_parser
    from jsonargparse import ArgumentParser

    from igrpo_sdk.commands.help_text import EXAMPLE, PlainHelp

    text = docstring_parser.parse(function.__doc__ or "")
    parser = ArgumentParser(
        prog=f"igrpo {name}",
        description=text.short_description,
        epilog="".join(f"{EXAMPLE}  {' '.join((one.description or '').split())}" for one in text.examples),
        formatter_class=PlainHelp,
    )
    for parameter, about in _parameters(function):
        name, hint = parameter.name, parameter.annotation
        flags = (*([_SHORT[name]] if name in _SHORT else []), _dashed(f"--{name}"))
        wanted: dict[str, Any] = {"help": about, "default": parameter.default}
        if parameter.default is parameter.empty:
            wanted = {"help": about, "required": True}
        if parameter.kind is parameter.VAR_POSITIONAL:
            parser.add_argument(name, nargs="+", type=hint, metavar=name.upper(), help=about)
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            parser.add_argument(name, type=hint, metavar=name.upper(), help=about)
        elif parameter.default is False:
            parser.add_argument(*flags, action="store_true", help=about)
        elif hint in (list[str], list[str] | None):  # --set a=1 --set b=2
            parser.add_argument(*flags, action="append", type=str, **wanted)
        elif hint == list[float] | None:  # --scale 1 1.5
            parser.add_argument(*flags, nargs="+", type=float, **wanted)
        else:
            parser.add_argument(*flags, type=hint, **wanted)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def _parameters(owner: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, str]]:
    """The parameters of a function, with their types and what is said of each; of a dataclass its fields."""
    import docstring_parser

    text, hints = docstring_parser.parse_from_object(owner), get_type_hints(owner)
    abouts = {item.arg_name.lstrip("*"): item.description or "" for item in text.params}
    for name, parameter in inspect.signature(owner).parameters.items():
        if is_dataclass(hints[name]):
            yield from _parameters(hints[name])
        else:
            yield parameter.replace(annotation=hints[name]), abouts.get(name, "")


def _call(function: Callable[..., Any], parser: ArgumentParser, words: Sequence[str]) -> Any:
    """Parse and call."""
    spelt = [_dashed(word) if word.startswith("--") else word for word in words]
    _check_options(parser, spelt)
    options = parser.instantiate(parser.parse_args(spelt))
    hints, values = get_type_hints(function), vars(options)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[name]):
            named[name] = hints[name](**{field.name: values[field.name] for field in fields(hints[name])})
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(values[name])
        elif parameter.kind is parameter.VAR_POSITIONAL:
            positional += values[name]
        else:
            named[name] = values[name]
    return function(*positional, **named)


def _dashed(word: str) -> str:
    """`--dry_run=a_b` as `--dry-run=a_b`."""
    option, equals, value = word[2:].partition("=")
    return f"--{option.replace('_', '-')}{equals}{value}"


def _check_options(parser: ArgumentParser, words: Sequence[str]) -> None:
    """End with bad usage at an option that there is not, and name the one that it is most like."""
    known = [flag for action in parser._actions for flag in action.option_strings]
    for word in itertools.takewhile(lambda word: word != "--", words):
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            near = difflib.get_close_matches(option, known, 1)
            parser.error(f"no option {option}; " + (f"did you mean {near[0]}?" if near else "see --help"))


def _overview(commands: dict[str, metadata.EntryPoint]) -> str:
    """The text of `igrpo --help`."""
    width = max(map(len, commands), default=0)
    texts = {name: _docstring(commands[name]) for name in sorted(commands)}
    lines = [f"  {name:{width}}  {(text.splitlines() or [''])[0]}" for name, text in texts.items()]
    shown = texts.get("generate", next(iter(texts.values()), ""))
    return "\n".join(
        [
            "usage: igrpo COMMAND [ARGUMENTS]",
            "",
            "Videos of several people who stay themselves.",
            "",
            "commands:",
            *lines,
            "",
            "igrpo COMMAND --help lists a command's options; --debug shows the traceback of an error.",
            "",
            "example:",
            f"  {shown.partition('Example:')[2].strip()}",
        ]
    )


def _summary(text: str) -> str:
    """The first line of a docstring."""
    return text.partition("\n")[0]


def _docstring(entry: metadata.EntryPoint) -> str:
    """A command's docstring, read from its source: importing it could import torch."""
    try:
        spec = util.find_spec(entry.module)
        source = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
        tree = ast.parse(source)
    except (ImportError, OSError, SyntaxError):
        return "(not installed)"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return ast.get_docstring(node) or ""
    return "(not installed)"


def _unknown(words: Sequence[str], commands: dict[str, metadata.EntryPoint]) -> int:
    """Say which commands there are; `igrpo train` lists those that begin with train."""
    family = {name: entry for name, entry in commands.items() if name.split()[0] == words[0]}
    helped = words[1:2] in (["-h"], ["--help"])
    if family and (helped or len(words) == 1):
        print(_overview(family), file=sys.stdout if helped else sys.stderr)
        return 0 if helped else 2
    name = " ".join(words[: 2 if family else 1])
    near = difflib.get_close_matches(name, commands, 1)
    hint = f"did you mean {near[0]!r}?" if near else "igrpo --help lists the commands"
    print(f"igrpo: no command {shortened(name)}; {hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
