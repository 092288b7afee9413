"""`igrpo train world` and `igrpo train policy`: run a recipe."""

from __future__ import annotations

import importlib
from pathlib import Path

from igrpo_sdk.errors import InputError

from .recipe import build, read_recipe

# kind of recipe: module, dataclass of the recipe, function that runs it; imported only when needed
_KINDS = {
    "vae": (".pretrain.vae", "VaeRecipe", "train_vae"),
    "text": (".pretrain.text", "TextRecipe", "train_text"),
    "flow": (".pretrain.flow", "FlowRecipe", "train_flow"),
    "assemble": (".pretrain.assemble", "AssembleRecipe", "assemble"),
    "reader": (".evaluation.reader_training", "ReaderRecipe", "train_reader"),
    "likeness": (".pretrain.faces.likeness", "LikenessRecipe", "train_likeness"),
    "faces": (".pretrain.faces.run", "FacesRecipe", "train_faces"),
}


def train_world(
    recipe: str,
    set: list[str] | None = None,
    resume: str | None = None,
    output: str = "runs/world",
    device: str = "auto",
) -> None:
    """Train one of the tiny models on the procedural world, or put the trained ones together.

    Args:
        recipe: name of a recipe (tiny_likeness, tiny_vae, tiny_vae_motion, tiny_vae_faces, tiny_text,
            tiny_flow_stills, tiny_flow, tiny_flow_fine, tiny_reader, tiny_faces, each also with _smoke behind
            it for a toy size; tiny_assemble) or path of a YAML file.
        set: changes to the recipe, such as budget.max_seconds=300.
        resume: "auto" to go on from the newest sound checkpoint in the output folder, or the path of one.
        output: folder for checkpoints, numbers, pictures and weights.
        device: "auto", "cpu" or "cuda".
    """
    data = read_recipe(recipe, set or [])
    kind = data.pop("kind")
    if kind not in _KINDS:
        raise InputError(f"recipe {recipe!r} has kind {kind!r}: use one of {', '.join(_KINDS)}")
    module_name, recipe_name, function_name = _KINDS[kind]
    module = importlib.import_module(module_name, __package__)
    run = getattr(module, function_name)
    run(build(getattr(module, recipe_name), data), Path(output), resume, device)


def train_policy(
    recipe: str,
    set: list[str] | None = None,
    resume: str | None = None,
    output: str = "runs/policy",
    device: str = "auto",
) -> None:
    """Align a video model with GRPO, so that people stay themselves; writes a LoRA adapter.

    On several GPUs: accelerate launch -m igrpo_sdk.training policy --recipe RECIPE

    Args:
        recipe: name of a recipe (tiny_vace, vace_1_3b_fast, vace_1_3b_paper, vace_14b_fsdp,
            smoke) or path of a YAML file.
        set: changes to the recipe, such as update.learning_rate=1e-4.
        resume: "auto" to go on from the newest sound checkpoint in the output folder, or the path of one.
        output: folder for the adapter, checkpoints, numbers and TensorBoard's files.
        device: "auto", "cpu" or "cuda".
    """
    from .policy.config import read_policy_recipe
    from .policy.trainer import train_policy as run

    adapter = run(read_policy_recipe(recipe, set or []), Path(output), resume, device)
    print(f"adapter: {adapter}")
