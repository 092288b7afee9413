"""The log of a run: one row an event, which goes on when the run is resumed."""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.training.common.log import LOG_FILE, MetricLog, read_log
from igrpo_sdk.training.policy.log import _Board


def test_rows_are_added_and_read_by_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "run"
    kept = MetricLog(output).event("train", 3, 1.2345, {"loss": 0.123456, "norm": math.nan, "lr": math.inf})
    assert kept == {"loss": 0.123456}
    assert capsys.readouterr().out == "[train] step 3 elapsed 1.2 loss 0.1235\n"
    MetricLog(output).event("end", 4, 2.0, {"finished": True, "why": "steps"})
    assert capsys.readouterr().out == "[end] step 4 elapsed 2.0 finished True why steps\n"
    first = {"event": "train", "step": 3, "elapsed": 1.23, "loss": 0.123456}
    assert (output / LOG_FILE).read_text().splitlines()[0] == json.dumps(first)
    assert read_log(output, "train") == [first]
    assert [row["event"] for row in read_log(output)] == ["train", "end"]


def test_a_log_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    for text in (None, "{", '{"event": '):
        if text is not None:
            (tmp_path / LOG_FILE).write_text(text)
        with pytest.raises(InputError, match=r"metrics\.jsonl cannot be read .*; give the output folder"):
            read_log(tmp_path)


def full_disk(work: Callable[[], object]) -> int:
    """The exit code of a child in which no file grows beyond 3,000 bytes; 7 for a ResourceError."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            work()
        except ResourceError:
            os._exit(7)
        except BaseException:
            os._exit(8)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_full_disk_is_told_and_leaves_whole_rows(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)

    def fill() -> None:
        for step in range(1000):
            log.event("train", step, 1.0, {"loss": 1.0})

    assert full_disk(fill) == 7
    rows = read_log(tmp_path)
    assert 20 < len(rows) < 1000
    assert [row["step"] for row in rows] == list(range(len(rows)))
    with pytest.raises(ResourceError, match="cannot be written"):
        MetricLog(tmp_path / LOG_FILE / "below")


def test_a_full_disk_does_not_end_a_run_that_shows_its_numbers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """TensorBoard's file is left, with a warning, and no thread prints a traceback."""
    board = _Board(tmp_path / "tensorboard")

    def fill() -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for step in range(1000):
                board.scalar("loss", 1.0, step)
            board.image("videos", np.zeros((64, 64, 3), np.uint8), 3)
            board.close()
        assert len(told) == 1
        assert "could not be written (File too large); the run goes on" in str(told[0].message)
        gc.collect()

    assert full_disk(fill) == 0
    assert capfd.readouterr().err == ""
    with pytest.warns(UserWarning, match="could not be written"):
        _Board(next((tmp_path / "tensorboard").iterdir()) / "below").scalar("x", 1.0, 0)


def test_what_is_shown_is_what_tensorboardx_writes(tmp_path: Path) -> None:
    from tensorboardX.event_file_writer import EventsWriter  # noqa: F401
    from tensorboardX.proto.event_pb2 import Event

    board = _Board(tmp_path)
    board.scalar("step/loss", 0.5, 3)
    board.image("videos", np.full((4, 6, 3), 128, np.uint8), 4)
    board.close()
    (file,) = tmp_path.iterdir()
    data, events = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    assert [event.step for event in events] == [0, 3, 4]
    assert events[1].summary.value[0].simple_value == 0.5
    picture = events[2].summary.value[0].image
    assert (picture.height, picture.width) == (4, 6)
