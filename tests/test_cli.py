"""The command line: exit codes, one-line errors, parsers made from functions (faults S13, S16, S17)."""

from __future__ import annotations

import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal

import pytest
from clock import seconds_of, slowness

from igrpo_sdk import Cancelled, InputError, WeightsError
from igrpo_sdk.commands.dispatch import COMMAND_GROUP, build_parser, main, run
from igrpo_sdk.commands.doctor import doctor
from igrpo_sdk.config import Preset, preset_names

HEAVY = ("torch", "numpy", "diffusers", "jsonargparse", "PIL", "av")


# ---- help


HELP = (
    "import sys; from igrpo_sdk.commands.dispatch import main; assert main(['--help']) == 0; "
    f"assert not set({HEAVY}) & set(sys.modules)"
)


def run_help() -> subprocess.CompletedProcess[str]:
    """`igrpo --help` in a new interpreter, which fails if anything heavy is loaded."""
    return subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)


@pytest.mark.timing
def test_help_is_quick() -> None:
    """0.1 s on an idle machine."""
    slow = slowness()
    assert statistics.median(seconds_of(run_help, 3)) < 3 * slow


def test_help_lists_every_command_without_loading_any() -> None:
    result = run_help()
    for entry in metadata.entry_points(group=COMMAND_GROUP):
        assert f"  {entry.name.replace('.', ' ')} " in result.stdout
    assert "(not installed)" not in result.stdout
    assert "Make a video in which" in result.stdout
    assert result.stdout.splitlines()[-2:] == [
        "example:",
        '  igrpo generate ann.png bob.png --prompt "Two people talk." -o talk.mp4',
    ]


@pytest.mark.parametrize("entry", metadata.entry_points(group=COMMAND_GROUP), ids=lambda entry: entry.name)
def test_every_command_has_help(entry: metadata.EntryPoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*entry.name.split("."), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: igrpo {entry.name.replace('.', ' ')}")
    assert not re.search(r"type:|<class|null|default: |--\w+_", text)
    parser = build_parser(entry.load(), "x")
    for option in parser._actions:
        assert option.help, f"{entry.name}: {option.dest} is not documented"
    # The example at the end can be given.
    last = text.rstrip().splitlines()[-1]
    program, *words = shlex.split(last)
    assert last.startswith(f"  igrpo {entry.name.replace('.', ' ')}") and program == "igrpo"
    parser.parse_args(words[len(entry.name.split(".")) :])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == metadata.version("igrpo-sdk")


# ---- exit codes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "commands:"),
        (["genrate"], "did you mean 'generate'?"),
        (["nonsense"], "igrpo --help"),
        (["train"], "train world"),
        (["train"], "example:\n  igrpo train merge runs/one/adapter"),
        (["train", "wrold"], "no command 'train wrold'; did you mean 'train world'?"),
        (["generate"], "required: references, prompt"),
        (["generate", "a.png"], "required: prompt"),
        (["generate", "a.png", "--prompt", "x", "--seed", "many"], "seed"),
        (["generate", "a.png", "--prompt", "x", "--colour", "red"], "colour"),
        (["generate", "a.png", "--prompt", "x", "--colour", "red"], "error: no option --colour; see --help"),
        (["generate", "a.png", "--prompt", "x", "--adaptr_scale=2"], "did you mean --adapter-scale?"),
        (["generate", "a.png", "--promt", "x"], "no option --promt; did you mean --prompt?"),
        (["generate", "a.png", "--prompt"], "prompt"),
    ],
)
def test_bad_usage_is_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert says in shown.err + shown.out
    assert "Traceback" not in shown.err


def test_a_failure_is_1_with_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    words = ["generate", str(tmp_path / "nowhere.png"), "--prompt", "x", "-o", str(output)]
    assert main(words) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("igrpo: error: references[0]: reference '")
    assert shown.err.count("\n") == 1
    assert main([*words, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_the_output_is_checked_before_anything_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, picture_file: Path
) -> None:
    for output in (picture_file, tmp_path, tmp_path / "missing" / "out.mp4", tmp_path / "out.txt"):
        assert main(["generate", "nowhere.png", "--prompt", "x", "-o", str(output)]) == 1
        assert "output '" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [picture_file.name]


def _import_that_was_interrupted() -> Exception:
    """What Ctrl-C becomes while a compiled module is being imported."""
    error, failed = WeightsError("model x: bad files"), ImportError("initialization failed")
    error.__cause__, failed.__cause__ = failed, KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (
            InputError("prompt: empty.\nSay what happens"),
            1,
            "igrpo: error: prompt: empty. Say what happens\n",
        ),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError: division by zero. --debug"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Cancelled("stopped"), 130, "interrupted"),
        (_import_that_was_interrupted(), 130, "interrupted"),
    ],
)
def test_how_a_command_ends(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        """Fail."""
        raise error

    assert run(lambda: fails, "fails", []) == code
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.err.count("\n") == 1


def test_a_command_may_return_its_code() -> None:
    assert run(lambda: lambda: 1, "x", []) == 1
    assert run(lambda: lambda: None, "x", []) == 0


def test_a_command_that_cannot_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    entry = metadata.EntryPoint("gone", "igrpo_sdk.gone:gone", COMMAND_GROUP)
    assert run(entry.load, "gone", []) == 1
    assert "igrpo_sdk.gone" in capsys.readouterr().err


# ---- parsers


def one(name: Path, /, *, tag: list[str], flag: bool = False) -> None:
    """Show what was given.

    Args:
        name: One name.
        tag: Some tags.
        flag: A flag.
    """
    print(repr(name), tag, flag)


def test_a_positional_only_parameter_is_one_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: one, "one", ["a.png", "--tag", "x", "--tag=y", "--flag"]) == 0
    assert capsys.readouterr().out == f"{Path('a.png')!r} ['x', 'y'] True\n"
    for words in (["a.png"], ["--tag", "x"], ["a.png", "b.png", "--tag", "x"]):
        assert run(lambda: one, "one", words) == 2


def sample(
    *names: str,
    text: str,
    mode: Literal["a", "b"] = "a",
    count: int | None = None,
    folder: Path = Path("x"),
    set: list[str] | None = None,
    dry_run: bool = False,
) -> None:
    """Show what was given.

    Args:
        names: Some names.
        text: Some text.
        mode: One of two.
        count: A number.
        folder: A folder.
        set: Changes.
        dry_run: A flag.
    """
    print(names, repr(text), mode, count, folder, set, dry_run)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["a", "b", "--text", "x"], "('a', 'b') 'x' a None x None False"),
        (["--text", "x", "--mode=b", "--count", "3", "a"], "('a',) 'x' b 3 x None False"),
        (
            ["a", "--text", "x", "--set", "p=1", "--set", "q=[2]"],
            "('a',) 'x' a None x ['p=1', 'q=[2]'] False",
        ),
        (["a", "--text", "x", "--dry-run", "--folder", "a-b"], "('a',) 'x' a None a-b None True"),
        (["a", "--text=--not-an-option"], "('a',) '--not-an-option' a None x None False"),
        (["null", "--text", "null"], "('null',) 'null' a None x None False"),
        (["[1]", "--text", "{a: [1, 2]}"], "('[1]',) '{a: [1, 2]}' a None x None False"),
        (["1", "--text", "5"], "('1',) '5' a None x None False"),
        (["a", "--text", ""], "('a',) '' a None x None False"),
        (
            ["a", "--text", "\N{GRINNING FACE} \udcff"],
            "('a',) '\N{GRINNING FACE} \\udcff' a None x None False",
        ),
    ],
)
def test_words_reach_the_function_as_they_were_typed(
    words: list[str], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: sample, "sample", words) == 0
    assert capsys.readouterr().out == f"{printed}\n"


@dataclass(frozen=True)
class Shared:
    """What several commands share."""

    size: int
    """How large."""
    name: str | None = None
    """A name."""
    dry_run: bool = False
    """A flag."""


def shares(*names: str, options: Shared, last: str = "x") -> None:
    """Show what was given.

    Args:
        names: Some names.
        options: What several commands share.
        last: The last.
    """
    print(names, options, last)


def test_the_fields_of_a_dataclass_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: shares, "shares", ["a", "--size", "3", "--dry-run", "--last=y"]) == 0
    assert capsys.readouterr().out == f"('a',) {Shared(3, dry_run=True)} y\n"
    assert run(lambda: shares, "shares", ["a"]) == 2
    assert "size" in capsys.readouterr().err
    told = {option.dest: option.help for option in build_parser(shares, "x")._actions}
    assert list(told)[1:] == ["names", "size", "name", "dry_run", "last", "debug"]
    assert (told["size"], told["dry_run"], told["last"]) == ("How large.", "A flag.", "The last.")


def test_help_says_in_plain_words_what_an_option_takes() -> None:
    text = " ".join(build_parser(sample, "sample").format_help().split())
    for words in (
        "--text TEXT Some text. (required)",
        "--mode {a,b} One of two. (by default a)",
        "--count COUNT A number. (a whole number)",
        "--folder FOLDER A folder. (a path, by default x)",
        "--set SET Changes. (may be repeated)",
        "--dry-run A flag. --debug",
    ):
        assert words in text
    assert "example:" not in text  # it has none


@pytest.mark.parametrize(
    "words", [["a"], ["a", "--text", "x", "--mode", "c"], ["a", "--text", "x", "--count", "1.5"]]
)
def test_words_that_do_not_fit(words: list[str]) -> None:
    assert run(lambda: sample, "sample", words) == 2


# ---- S17


WAITING = """
import sys, time
from igrpo_sdk.commands.dispatch import run

def wait() -> None:
    "Wait."
    print("waiting", flush=True)
    time.sleep(600)

sys.exit(run(lambda: wait, "wait", []))
"""


def test_s17_an_interrupt_is_130() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "igrpo: interrupted; no unfinished file was left\n"


TERMINATED = (
    WAITING.replace('sys.exit(run(lambda: wait, "wait", []))', "")
    + """
from igrpo_sdk.commands import dispatch

dispatch._dispatch = lambda words: run(lambda: wait, "wait", words)
sys.exit(dispatch.main([]))
"""
)


def test_s17_a_request_to_terminate_is_143() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TERMINATED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (143, "igrpo: terminated; no unfinished file was left\n")


# ---- S13


@pytest.mark.usefixtures("shipped_weights")
def test_s13_doctor_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor()
    text = capsys.readouterr().out
    for word in (
        "Python 3.",
        "memory",
        "cpu",
        f"torch {metadata.version('torch')}",
        "[serve]",
        "[judge]",
        "tiny-vace",
        "pack tiny works; onnxruntime has",
    ):
        assert word in text
    assert code == 0
    assert "!" not in text


def test_s13_doctor_names_the_adapter_of_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Preset.load
    monkeypatch.setattr(Preset, "load", lambda name: replace(load(name), adapter="someone/aligned"))
    doctor()
    lines = [line for line in capsys.readouterr().out.splitlines() if "aligned by someone/aligned" in line]
    assert [line.split()[0].rstrip(",:") for line in lines] == preset_names()


MISSING = """
import sys
from importlib import metadata
found = metadata.version

def version(name):
    if name in ("av", "dlib-bin"):
        raise metadata.PackageNotFoundError(name)
    return found(name)

metadata.version = version  # what importlib says of a package that is not there
sys.modules["torch"] = None  # what Python does when a module is not there
from igrpo_sdk.commands.doctor import doctor
sys.exit(doctor())
"""


def test_s13_doctor_names_what_is_missing() -> None:
    result = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, check=False)
    assert result.returncode == 1, result
    assert "! av is not installed" in result.stdout
    assert "! torch does not load" in result.stdout
    assert "[judge] lacks dlib-bin: pip install 'igrpo-sdk[judge]'" in result.stdout
