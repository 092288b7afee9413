"""The options of `igrpo eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["EvaluationOptions"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated, on which cases, and how."""

    output: Path
    """Folder for videos, measures, results.json and report.html. A run that ended goes on there."""
    model: str | None = None
    """A model to evaluate, called base: a preset's name, a directory, or a Hub repository. Without its
    adapter, if it has one."""
    adapter: str | None = None
    """An adapter of the model, called aligned, compared with the base case by case: a directory, a
    .safetensors file, a Hub repository, or "default" for the model's own."""
    against: str | None = None
    """Another model, called against, compared with the base case by case."""
    videos: list[str] | None = None
    """NAME=DIR: videos that were made elsewhere, DIR/ID.mp4, .webm or .gif for each case. May be
    repeated; without a model the first is the base."""
    floor: bool = False
    """Also evaluate the model with blank references, called blank: what is found when nobody could be
    shown."""
    ceiling: bool = False
    """Also evaluate the suite's scenes as the world renders them, called true: what is found of a video
    without a fault."""
    refined: bool = False
    """Give all models prompts completed with what is visible of each person: the world's own words, or
    each line's "refined_prompt" (`igrpo train refine-prompts` writes it)."""
    suite: str = "world"
    """"world", or a JSON Lines file with references and prompt on each line (docs/evaluation.md)."""
    cases: int | None = None
    """How many cases, shared evenly by the parts; by default 200 of "world", all of a file."""
    pack: str = "tiny"
    """Face pack of the analyzer: "tiny" for rendered people, a folder, or one of insightface's own."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is; for making videos."""
    batch: int | None = None
    """Videos made at once; by default 1 on a CPU and 4 elsewhere."""
    workers: int | None = None
    """Processes of the judge; by default one for each core."""
    no_judge: bool = False
    """Leave the independent judge out."""
    partial: bool = False
    """Leave out cases whose video is missing or unreadable in some system, instead of an error."""
    videos_only: bool = False
    """Stop when the videos are made, such as on a machine with a GPU and nothing else. The same command
    without this measures them, there or where the folder was copied to."""
