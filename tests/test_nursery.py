"""Processes of the nursery are those of Python: arguments, output, exit codes, signals, modules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nursery import Nursery, pair, run

PROGRAM = """
import os, sys
print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("SAID"))
print("complaint", file=sys.stderr)
if sys.argv[1:] == ["wrong"]:
    raise ValueError("wrong")
sys.exit(int(sys.argv[1]) if sys.argv[1:] else None)
"""


@pytest.mark.parametrize("words", [[], ["0"], ["3"], ["wrong"]], ids=" ".join)
@pytest.mark.parametrize("kind", ["file", "module", "text"])
def test_a_program_is_run_as_python_runs_it(
    nursery: Nursery, tmp_path: Path, kind: str, words: list[str]
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    start = {"file": ["program.py"], "module": ["-m", "program"], "text": ["-c", PROGRAM]}[kind]
    env = {**os.environ, "SAID": kind, "PYTHONPATH": str(tmp_path)}
    there = subprocess.run(
        [sys.executable, *start, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    here = run(nursery, [*start, *words], tmp_path / "said", cwd=tmp_path, env=env)
    assert (here.returncode, here.stdout) == (there.returncode, there.stdout)
    assert here.stderr.splitlines()[:1] == there.stderr.splitlines()[:1]
    assert here.stderr.splitlines()[-1:] == there.stderr.splitlines()[-1:]


def test_signals_and_waiting(nursery: Nursery, tmp_path: Path) -> None:
    program = "print('here', flush=True); import time; time.sleep(300)"
    first, second = (nursery.start(["-c", program], tmp_path) for _ in range(2))
    while not (first.stdout and second.stdout):
        time.sleep(0.01)
    assert first.poll() is second.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.01)
    assert first.wait() == -signal.SIGKILL
    os.kill(second.pid, signal.SIGINT)
    assert second.wait() != 0 and "KeyboardInterrupt" in second.stderr


def test_two_processes_are_one_group(nursery: Nursery, tmp_path: Path) -> None:
    program = (
        "import torch, torch.distributed as group\n"
        "group.init_process_group('gloo')\n"
        "value = torch.tensor([float(group.get_rank() + 1)])\n"
        "group.all_reduce(value)\n"
        "print(value.item())\n"
    )
    both = pair(nursery, ["-c", program], tmp_path)
    assert [one.wait() for one in both] == [0, 0], [one.stderr for one in both]
    assert [one.stdout for one in both] == ["3.0\n"] * 2


def test_nothing_was_used_before(nursery: Nursery, tmp_path: Path) -> None:
    program = (
        "import sys, torch\n"
        "from accelerate.state import PartialState\n"
        "print(torch.initial_seed() == torch.default_generator.initial_seed(), PartialState._shared_state)\n"
        "assert 'diffusers' in sys.modules and 'transformers' in sys.modules\n"
    )
    assert run(nursery, ["-c", program], tmp_path).stdout == "True {}\n"
