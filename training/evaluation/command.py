"""Evaluation: make or take videos of a suite, measure them, compare systems, write numbers and a page.

Everything is under one folder, each file whole or not there, and what is there is not done again:

    suite.jsonl, references/     the built-in suite, for other generators too
    videos/SYSTEM/ID.mp4         what a model made
    measures/SYSTEM/ID.json      what was measured of a video, and what that depends on
    results.json, report.html    the numbers and the page
"""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.identity.analyzer import FaceAnalyzer
from igrpo_sdk.identity.packs import name_pack
from igrpo_sdk.media.files import check_output_path, read_json, write_text
from igrpo_sdk.pipeline import IdentityPipeline

from ..data.rows import NAME, Case
from .comparing import ALL, Row, as_metrics, groups, table
from .making import SETTINGS_FILE, make_videos, render_videos, scenes_of
from .measures import JUDGED_EVERY, UNSEEN, Lab, Measures, video_file
from .options import EvaluationOptions
from .report import plots
from .report.page import Evaluation, all_warnings, page
from .results import hardware, write_results
from .suites import DEFAULT_CASES, load_suite, with_refined_prompts

BASE, ALIGNED, AGAINST, BLANK, TRUE = "base", "aligned", "against", "blank", "true"
"""Names of the systems that are made here."""
_LISTED = 10  # problems in an error
_HEADLINES = ("similarity", "owned", "judge_owned", "judge_auc", "prompt_following")


@dataclass(frozen=True)
class System:
    """What is evaluated: videos in a folder, of a model that makes them first, or (None) of another maker.

    adapter: what is loaded into the model; None for the base. blank: the model is given blank references.
    rendered: of no model: the scenes of the suite, as the world renders them.
    """

    name: str
    videos: Path
    model: str | None = None
    adapter: str | None = None
    blank: bool = False
    rendered: bool = False

    @property
    def made_here(self) -> bool:
        """Whether its videos are made by the command."""
        return self.rendered or self.model is not None


def evaluate(options: EvaluationOptions) -> None:
    """Make and measure the videos of all systems, and write and print what was found.

    What is there of an earlier run is not done again. Raises InputError for options that make no sense.
    """
    output = options.output
    systems = choose_systems(options)
    _check_folder(output)
    chosen = load_suite(options.suite, options.cases, output)
    if options.ceiling:
        scenes_of(chosen)  # before any video is made
    if options.refined:
        chosen = with_refined_prompts(chosen)
    if options.videos_only:
        make(systems, chosen, options.device, options.batch)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        analyzer = FaceAnalyzer.load(options.pack)
    told = [str(warning.message) for warning in caught]
    plots.require_matplotlib()
    lab = Lab(output / "measures", analyzer, not options.no_judge, options.workers)
    lab.check_references(chosen)
    if not options.partial:
        _check_complete(systems, chosen)
    make(systems, chosen, options.device, options.batch)
    problems = {system.name: lab.measure(system.name, chosen, system.videos) for system in systems}
    kept = _without_problems(chosen, problems, options.partial)
    told += [f"{name}: left out: {problem}" for name, some in problems.items() for problem in some.values()]
    results = {system.name: [lab.read(system.name, case) for case in kept] for system in systems}
    suite = options.suite + " with refined prompts" * options.refined
    facts = _facts(systems, suite, chosen, results, lab)
    publish(output, systems, results, facts, told, _command(options, len(chosen)))


def choose_systems(options: EvaluationOptions) -> list[System]:
    """The systems of a command, the base first. Raises InputError for a choice that makes no sense."""
    model, adapter, against = options.model, options.adapter, options.against
    if model is None and (options.floor or against is not None or adapter is not None):
        raise InputError("model: none given; --floor, --adapter and --against compare with --model")
    if adapter == "none":
        raise InputError("adapter: 'none' is the base, which is always there; give an adapter")
    made = options.output / "videos"
    systems = [] if model is None else [System(BASE, made / BASE, model)]
    systems += [] if adapter is None else [System(ALIGNED, made / ALIGNED, model, adapter)]
    systems += [] if against is None else [System(AGAINST, made / AGAINST, against)]
    for given in options.videos or []:
        name, equals, folder = given.partition("=")
        if not equals or not NAME.fullmatch(name):
            raise InputError(f"videos: {given!r}; give NAME=DIR, such as other=videos/other")
        systems.append(System(name, Path(folder)))
    systems += [System(BLANK, made / BLANK, model, blank=True)] if options.floor else []
    systems += [System(TRUE, made / TRUE, rendered=True)] if options.ceiling else []
    names = [system.name.lower() for system in systems]  # they name folders, also where case does not count
    if not systems:
        raise InputError("model: none given, and no videos; give --model or --videos NAME=DIR")
    if len(set(names)) < len(names):
        raise InputError(f"videos: the names {', '.join(names)} must differ; choose others")
    return systems


def make(systems: Sequence[System], cases: Sequence[Case], device: str, batch: int | None) -> None:
    """Make the videos of all systems that are made here; each model is loaded once, its adapter put in and
    out.
    """
    for system in systems:
        if system.rendered:
            render_videos(cases, system.videos)
    for model in dict.fromkeys(system.model for system in systems if system.model is not None):
        pipe = IdentityPipeline.from_pretrained(model, adapter="none", device=device)
        for system in systems:
            if system.model == model:
                if system.adapter is None:
                    pipe.unload_adapter()
                else:
                    pipe.load_adapter(system.adapter)
                make_videos(pipe, cases, system.videos, blank=system.blank, batch=batch)


def publish(
    output: Path,
    systems: Sequence[System],
    results: Mapping[str, Sequence[Measures]],
    facts: Mapping[str, str],
    told: Sequence[str],
    command: str,
) -> None:
    """Write results.json and report.html, and print the headlines and where the page is."""
    rows = table(results)
    warned = [*told, *all_warnings(results)]
    notes = [*_notes(systems, results), f"{len(warned)} warnings, listed in the report."]
    metrics = as_metrics(rows)
    counts = {group: len(indices) for group, indices in groups(next(iter(results.values()))).items()}
    metrics["counts"] = {"cases": counts.pop(ALL), "parts": counts}
    videos = {system.name: system.videos for system in systems}
    found = Evaluation(results, videos, rows, {**facts, "command": command}, notes, warned)
    write_text(output / "report.html", page(found))
    made = ", ".join(sorted({s["hardware"] for s in _settings(systems).values()})) or "elsewhere"
    write_results(output / "results.json", command, f"videos: {made}; measures: {hardware()}", metrics, notes)
    for warning in told:
        print(f"igrpo: warning: {warning}", file=sys.stderr)
    print("\n".join(_headlines(rows[ALL])))
    print(output / "report.html")


def _check_folder(output: Path) -> None:
    """The folder is made, and takes files."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"output {str(output)!r}: is a file; give a folder") from None
    except (OSError, ValueError) as error:
        raise ResourceError(f"output {str(output)!r}: cannot be made ({error}); choose another") from None
    check_output_path(output / "results.json", overwrite=True, suffixes=(".json",))


def _check_complete(systems: Sequence[System], cases: Sequence[Case]) -> None:
    """Every video that is not made here is there: asked before any is made."""
    for system in systems:
        if system.made_here:
            continue
        if not system.videos.is_dir():
            raise InputError(f"videos: {str(system.videos)!r} is no folder; give NAME=DIR")
        missing = [case.id for case in cases if video_file(system.videos, case) is None]
        if missing:
            raise InputError(
                f"videos: {str(system.videos)!r} lacks {_listed(missing)}: ID.mp4, .webm or .gif; --partial "
                "leaves them out"
            )


def _without_problems(
    cases: Sequence[Case], problems: Mapping[str, Mapping[str, str]], partial: bool
) -> list[Case]:
    """The cases that were measured in every system; InputError for problems without `partial`."""
    found = [problem for some in problems.values() for problem in some.values()]
    if found and not partial:
        raise InputError(f"{_listed(found)}. Make them again, or leave them out with --partial")
    kept = [case for case in cases if not any(case.id in some for some in problems.values())]
    if not kept:
        raise InputError(f"no case has a readable video in every system: {_listed(found)}")
    return kept


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(words[:_LISTED]) + more


def _facts(
    systems: Sequence[System],
    suite: str,
    cases: Sequence[Case],
    results: Mapping[str, Sequence[Measures]],
    lab: Lab,
) -> dict[str, str]:
    """What was run, in words."""
    settings = _settings(systems)
    facts = {}
    for system in systems:
        about = settings.get(system.name)
        facts[system.name] = "videos made elsewhere"
        if system.rendered:
            facts[system.name] = "the scenes, as the world renders them"
        elif about is not None:
            facts[system.name] = (
                f"{system.model}: {about['steps']} steps, guidance {about['guidance_scale']}, "
            )
            facts[system.name] += f"{about['size']}, weights {about['weights']}"
            facts[system.name] += ", blank references" * system.blank
            if about.get("adapter"):
                facts[system.name] += f", adapter {about['adapter']['name']} ({about['adapter']['hash'][:8]})"
    counted = groups(next(iter(results.values())))
    parts = ", ".join(f"{part} {len(some)}" for part, some in counted.items() if part != ALL)
    facts["suite"] = f"{suite}: {len(counted[ALL])} of {len(cases)} cases" + (f" ({parts})" if parts else "")
    same = lab.analyzer.same_person
    facts["analyzer"] = f"{name_pack(lab.analyzer.name)} ({lab.analyzer.mark}), one person from {same:.2f} up"
    facts["judge"] = f"dlib, {lab.judge}" if lab.judge else "left out"
    facts["measured on"] = hardware()
    return facts


def _settings(systems: Sequence[System]) -> dict[str, Any]:
    """What the videos of each system that was made here were made with."""
    return {s.name: read_json(s.videos / SETTINGS_FILE) for s in systems if s.made_here}


def _notes(systems: Sequence[System], results: Mapping[str, Sequence[Measures]]) -> Iterator[str]:
    """What a reader must know to judge the numbers."""
    base = next(iter(results.values()))
    yield (
        "Means over cases; intervals: bootstrap 95 %, cases resampled. Differences and wins: case by case, "
        "ties half. details.NAME.count says in how many cases a number is defined."
    )
    yield (
        f"The analyzer measures every frame of the video file, the judge every {JUDGED_EVERY}th. Who is not "
        "seen counts 0. Best assignment flatters; at the place means whoever stands where the prompt puts "
        "the person, which is not defined where people change places or a suite does not tell their places."
    )
    yield (
        "Judge: dlib, never optimised against; its AUC compares faces with their own and with the others' "
        "references, pooled over videos, and 0.5 is chance."
    )
    if any(system.blank for system in systems):
        yield (
            "blank: grey pictures as references, and prompts that say nothing of how anybody looks. The "
            "reader finds people by their looks, so that blank follows prompts less by construction."
        )
    if any(system.rendered for system in systems):
        yield (
            "true: the scenes as the world renders them. What is found there is no fault of a model: faces "
            "that are hidden or turned away, and what is taken for copied though nothing is."
        )
    unseen = sum(warning.startswith(UNSEEN) for one in base for warning in one.warnings)
    if unseen:
        yield f"The judge sees no face in {unseen} references; their cases lack its numbers."
    if any(one.case.scene for one in base):
        yield "Prompt following: by a reader trained on renders of other people, which errs on renders too."


def _headlines(rows: Sequence[Row]) -> Iterator[str]:
    """A few numbers for the terminal."""
    names = list(rows[0].values)
    width = max(12, *map(len, names))
    yield "  ".join([f"{'':43}", *(f"{name:>{width}}" for name in names)])
    for row in rows:
        if row.key in _HEADLINES:
            cells = ("-" if e.value is None else f"{e.value:.3f}" for e in row.values.values())
            yield "  ".join([f"{row.words + ', ' + row.by:43}", *(f"{cell:>{width}}" for cell in cells)])


def _command(options: EvaluationOptions, cases: int) -> str:
    """The command line that makes these numbers again; `cases` is how many there were."""
    values = {name: getattr(options, name) for name in ("model", "adapter", "against", "suite")}
    values |= {"cases": cases, "pack": options.pack}
    left_out = {"suite": "world", "cases": DEFAULT_CASES, "pack": "tiny"}
    words = [f"--{name}={value}" for name, value in values.items() if value != left_out.get(name)]
    words += [f"--videos={given}" for given in options.videos or []]
    flags = ("floor", "ceiling", "refined", "no_judge", "partial")
    words += [f"--{name.replace('_', '-')}" for name in flags if getattr(options, name)]
    return shlex.join(["igrpo", "eval", *words, "--output=DIR"])
