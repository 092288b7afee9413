"""The model card of assembled weights: a template filled with the facts of the runs that made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from igrpo_sdk.config import Preset

from ..common.log import LOG_FILE, read_log
from ..common.recipe import read_recipe
from ..world.identities import SPLITS
from ..world.scenes import ACTIONS, BACKGROUNDS, LIGHTS

_TEMPLATE = Path(__file__).with_name("card.md")


def write_card(directory: Path, name: str, preset: Preset, runs: Mapping[str, Path], note: str = "") -> Path:
    """Write `directory/README.md`, the card of the model `name`.

    `runs`: name of a recipe to the output folder of its run. What `metrics.jsonl` there does not tell is
    taken from the recipe, and said to be so. `note`: sentences for what neither knows. The table of measured
    numbers is left to docs/tables.py.
    """
    size = preset.geometry
    facts = {
        "name": name,
        "table": name.replace("-", "_"),
        "runs": "\n".join(_describe(recipe, folder) for recipe, folder in runs.items()),
        "note": f"\n{note}\n" if note else "",
        "max_references": preset.max_references,
        "steps": preset.steps,
        "guidance_scale": preset.guidance_scale,
        "flow_shift": preset.flow_shift,
        "height": size.height,
        "width": size.width,
        "num_frames": size.num_frames,
        "fps": f"{size.fps:g}",
        "backgrounds": len(BACKGROUNDS),
        "lights": len(LIGHTS),
        "actions": len(ACTIONS),
    }
    facts |= {split: f"{people[0]} to {people[-1]}" for split, people in SPLITS.items()}
    target = directory / "README.md"
    target.write_text(Template(_TEMPLATE.read_text("utf-8")).substitute(facts), "utf-8")
    return target


def _describe(recipe: str, folder: Path) -> str:
    """One item of the list of runs."""
    planned = str(read_recipe(recipe).get("hardware", "")) or "not noted"
    rows = read_log(folder) if (folder / LOG_FILE).is_file() else []
    start = next((row for row in reversed(rows) if row["event"] == "start"), None)
    if start is None:
        return f"- recipe `{recipe}`: the run left no log; the recipe's own note: {planned}"
    last: dict[str, Any] = next((row for row in reversed(rows) if row["event"] == "validation"), {})
    known = {"event", "step", "elapsed", "finished"}
    numbers = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k not in known)
    where = start.get("hardware", f"hardware not logged; the recipe's own note: {planned}")
    return (
        f"- recipe `{recipe}`: {start['parameters'] / 1e6:.2f} million parameters trained for "
        f"{rows[-1]['step']} steps in {rows[-1]['elapsed']:.0f} seconds ({where})"
        + (f"; on validation people at the end: {numbers}" if numbers else "")
    )
