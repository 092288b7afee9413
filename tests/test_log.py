"""The log of a run: one row an event, which goes on when the run is resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.common.log import LOG_FILE, MetricLog, read_log


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
