"""Every `igrpo train` and `igrpo eval`: the options, and which function does the work.

That is imported when a command runs, so that its help is quick.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from igrpo_sdk.config import check_number
from igrpo_sdk.errors import InputError
from igrpo_sdk.refinement import DEFAULT_REFINER

from .common.recipe import build, read_recipe
from .evaluation.options import EvaluationOptions

__all__ = ["evaluate", "merge_adapters", "refine_prompts", "serve_rewards", "train_policy", "train_world"]

# kind of recipe: module, dataclass of the recipe, function that runs it; imported only when needed
_KINDS = {
    "vae": (".pretrain.vae", "VaeRecipe", "train_vae"),
    "text": (".pretrain.text", "TextRecipe", "train_text"),
    "flow": (".pretrain.flow", "FlowRecipe", "train_flow"),
    "assemble": (".pretrain.assemble", "AssembleRecipe", "assemble"),
    "reader": (".reader.training", "ReaderRecipe", "train_reader"),
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

    Example:
        igrpo train world --recipe tiny_vae_smoke --output runs/vae
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

    Example:
        igrpo train policy --recipe smoke --output runs/smoke
    """
    from .policy.config import read_policy_recipe
    from .policy.trainer import train_policy as run

    adapter = run(read_policy_recipe(recipe, set or []), Path(output), resume, device)
    print(f"adapter: {adapter}")


def merge_adapters(
    *adapters: str,
    output: Path,
    scale: list[float] | None = None,
    rank: int | None = None,
    guidance: float | None = None,
    recipe: str | None = None,
    set: list[str] | None = None,
    slack: float = 0.01,
    device: str = "auto",
) -> None:
    """Write the mean of adapters, as strong as is best and with a lower rank if you like.

    With a recipe, each scale is evaluated and the best is taken: see `merging.best_scale`. Prompts are those
    of the recipe's `evaluation`, of the world those of validation people, so that nothing is chosen on test
    people. What is found is printed, and kept in `igrpo.json`.

    Args:
        adapters: Directories of adapters of one base and of the same layers, such as those of runs that
            differ in their seed.
        output: New directory for the adapter, which is to be used at a scale of 1.
        scale: What the mean is multiplied by, 0 to 4; by default 1, as trained. With a recipe several.
        rank: Of the adapter, whose matrices are then the nearest of that rank. By default the sum of all.
        guidance: The weight of its change (`lora.guidance`), with matrices that are as much smaller, so that
            to first order nothing changes. That of the model's guidance saves a third pass at each step.
        recipe: The one they were trained with, for its rewards, its evaluation and its alarm.
        set: Changes to the recipe, such as evaluation.count=256.
        slack: How far a guard of the alarm may be below the base's, in its own units.
        device: Where videos are made to evaluate: "auto", "cpu" or "cuda".

    Example:
        igrpo train merge runs/one/adapter runs/two/adapter --rank 8 --output runs/merged
    """
    from igrpo_sdk.adapters.use import MAX_SCALE

    from .policy import merging
    from .policy.config import read_policy_recipe

    scales = scale or [1.0]
    for each in scales:
        check_number("scale", each, 0.0, MAX_SCALE)
    if output.exists():
        raise InputError(f"output {str(output)!r}: exists already; choose another")
    if recipe is None:
        if len(scales) > 1:
            raise InputError(f"scale: {len(scales)} of them; give a --recipe to choose by")
        merging.write_merged(merging.merged(adapters, rank, guidance), scales[0], output)
        print(f"{output}: at scale {scales[0]:g}, not evaluated")
        return
    config = read_policy_recipe(recipe, set or [])
    if not config.alarm.reward:
        raise InputError(f"recipe: {recipe} has no alarm, so that nothing says what is best; leave it out")
    file = merging.merged(adapters, rank, guidance)
    print(f"{output}: at scale {merging.write_best(file, scales, output, config, slack, device):g}")


def refine_prompts(
    data: Path,
    /,
    *,
    output: Path,
    model: str = DEFAULT_REFINER,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Complete the prompts of a data file with what is visible of each person, for prompts.refined=true.

    Rows that have a refined_prompt keep it. A run that was killed goes on where it was.

    Args:
        data: JSON Lines, the format of training data.
        output: The file to write, .jsonl: the same rows, each with a refined_prompt beside its prompt.
        model: A Qwen2.5-VL, a folder or a Hub repository.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is.
        overwrite: Replace the output file if it exists.

    Example:
        igrpo train refine-prompts train.jsonl -o refined.jsonl
    """
    from igrpo_sdk.commands.progress import ProgressBar
    from igrpo_sdk.refinement import QwenRefiner

    from .data.refining import refine_file

    with ProgressBar() as bar:
        made, kept = refine_file(
            data,
            output,
            lambda: QwenRefiner.from_pretrained(model, device=device),
            model,
            overwrite,
            bar.update,
        )
    print(f"{output}: {made} prompts refined, {kept} kept")


def serve_rewards(
    recipe: str, set: list[str] | None = None, host: str = "127.0.0.1", port: int = 8900
) -> None:
    """Serve the rewards of a recipe to trainers on other machines, until interrupted.

    A trainer names them in its recipe's rewards.remote. If the environment variable IGRPO_REWARD_TOKEN is
    set, here and there, only who knows it is answered.

    Args:
        recipe: name of a recipe or path of a YAML file that has a group `rewards`, without remote ones.
        set: changes to the recipe, such as rewards.measuring.workers=8.
        host: address to listen on; 0.0.0.0 for all of this machine.
        port: port to listen on.

    Example:
        igrpo train serve-rewards --recipe smoke --port 8900
    """
    from .rewards.server import read_config, serve

    config = read_config(recipe, set or [])
    if config.remote:
        raise InputError(f"recipe {recipe!r} has remote rewards: a server scores here; take them out")
    serve(config, host, port)


def evaluate(options: EvaluationOptions) -> None:
    """Measure how well people stay themselves over a suite of cases, and compare models.

    Args:
        options: What is evaluated, on which cases, and how.

    Example:
        igrpo eval --model tiny-vace --floor --cases 30 -o runs/identity
    """
    from .evaluation.command import evaluate as run

    run(options)
