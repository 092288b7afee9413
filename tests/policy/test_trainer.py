"""The trainer on a random model: it resumes bit for bit, and any number of processes learns the same."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from nursery import Nursery, pair
from safetensors.torch import load_file
from small_runs import recipe, settings, write_prompts, write_recipe
from torch import Tensor

from igrpo_sdk.adapters.read import read_adapter
from igrpo_sdk.backbones.switching import AdapterUse
from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError, NumericsError, WeightsError
from igrpo_sdk.identity.report import IdentityReport, PersonReport
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.training.common.checkpoint import list_checkpoints, load
from igrpo_sdk.training.common.log import read_log
from igrpo_sdk.training.common.recipe import build
from igrpo_sdk.training.policy import trainer
from igrpo_sdk.training.policy.config import PolicyRecipe, check_same_recipe
from igrpo_sdk.training.policy.model import load_pipeline
from igrpo_sdk.training.policy.processes import Processes
from igrpo_sdk.training.policy.prompts import PromptConfig, make_prompts
from igrpo_sdk.training.policy.rollout import Chunk
from igrpo_sdk.training.policy.sharding import check_lockstep
from igrpo_sdk.training.policy.trainer import train_policy
from igrpo_sdk.training.policy.update import Learner
from igrpo_sdk.training.policy.validation import Alarm, AlarmError, EvaluationConfig, Evaluator
from igrpo_sdk.training.rewards.base import Rollout
from igrpo_sdk.training.rewards.measuring import Measurer
from igrpo_sdk.training.rewards.scoring import RewardError

WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="module")
def unbroken(
    tiny_directory: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Tensor]:
    """The adapter of a run of three steps without a break."""
    output = tmp_path_factory.mktemp("unbroken")
    return adapter(train_policy(recipe(tiny_directory, prompts), output, device="cpu"))


def adapter(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / WEIGHTS)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run(tiny_directory: Path, prompts: Path, tmp_path: Path, unbroken: dict[str, Tensor]) -> None:
    """What it writes; evaluating at every step changes nothing."""
    often = {**settings(tiny_directory, prompts)["evaluation"], "every": 1, "shown": 2, "keep": True}
    made = train_policy(recipe(tiny_directory, prompts, evaluation=often), tmp_path, device="cpu")
    assert same(adapter(made), unbroken)
    kept = {path.name: adapter(path) for path in (tmp_path / "adapters").iterdir()}
    assert sorted(kept) == [f"step-{step}" for step in range(4)]
    assert same(kept["step-3"], unbroken) and not same(kept["step-2"], unbroken)
    steps, evaluations = read_log(tmp_path, "step"), read_log(tmp_path, "evaluation")
    assert [row["step"] for row in steps] == [1, 2, 3] and len(evaluations) == 4
    assert all(row["ratio_error"] == 0 and row["gradient_norm"] > 0 for row in steps)
    assert all(-1 <= row["reward/motion"] <= 0 and row["missing/motion"] == 0 for row in steps)
    assert list((tmp_path / "tensorboard").iterdir())
    pipe = IdentityPipeline.from_pretrained(tiny_directory, adapter=made, device="cpu")
    assert pipe.adapter is not None and pipe.adapter.info is not None
    assert pipe.adapter.info.base_model == pipe.preset.name


def test_two_updates_a_rollout(tiny_directory: Path, prompts: Path, tmp_path: Path) -> None:
    """The second update meets a policy that has moved: its ratio is not 1."""
    changes: dict[str, Any] = {
        "steps": 1,
        "update": {"groups": 2, "updates": 2, "learning_rate": 1e-2},
        "objective": {"kl": 0.1},
    }
    train_policy(recipe(tiny_directory, prompts, **changes), tmp_path, device="cpu")
    [row] = read_log(tmp_path, "step")
    assert row["ratio_error"] > 0 and row["kl"] > 0


def test_an_adapter_says_how_it_is_used(tiny_directory: Path, prompts: Path, tmp_path: Path) -> None:
    """It is loaded with that, and another may begin with it, and says so."""
    lora = {"noise_levels": (0.6, 0.9), "guidance": 3.0}
    changes: dict[str, Any] = {"objective": {"method": "awm"}, "lora": lora}
    made = train_policy(recipe(tiny_directory, prompts, steps=1, **changes), tmp_path, device="cpu")
    pipe = IdentityPipeline.from_pretrained(tiny_directory, adapter=made, device="cpu")
    assert pipe.backbone.adapter_use == AdapterUse((0.6, 0.9), 3.0)
    assert pipe.adapter is not None and pipe.adapter.info is not None and not pipe.adapter.info.made_from
    changes["lora"] = {**lora, "initial": str(made)}
    again = recipe(tiny_directory, prompts, steps=1, **changes)
    info = read_adapter(train_policy(again, tmp_path / "later", device="cpu")).info
    assert info is not None and info.made_from == (f"adapter ({pipe.adapter.hash[:8]})",)
    said = made / "igrpo.json"
    said.write_text(said.read_text().replace(str(info.base_weights), "deadbeef"))
    with pytest.raises(WeightsError, match=r"trained on .*weights deadbeef.*; this is"):
        train_policy(again, tmp_path / "other", device="cpu")


def test_where_it_cannot_run_or_write(tiny_directory: Path, prompts: Path, tmp_path: Path) -> None:
    made = recipe(tiny_directory, prompts)
    with pytest.raises(InputError, match="device: 'gpu' is not there"):
        train_policy(made, tmp_path / "run", device="gpu")
    with pytest.raises(InputError, match=r"prompts.jsonl': is a file; give a folder"):
        train_policy(made, prompts, device="cpu")


@pytest.mark.parametrize("objective", [{"method": "best_of_n"}, {"method": "awm", "kl": 0.1}])
def test_learning_from_final_latents(
    tiny_directory: Path, prompts: Path, tmp_path: Path, objective: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {"steps": 2, "objective": objective}
    made = train_policy(recipe(tiny_directory, prompts, **changes), tmp_path, device="cpu")
    assert all(row["flow_matching"] > 0 for row in read_log(tmp_path, "step"))
    assert any(value.any() for name, value in adapter(made).items() if "lora_B" in name)


def test_credit_of_faces(tiny_directory: Path, prompts: Path, tmp_path: Path) -> None:
    """References of noise show no face: nothing is measured, and the run goes on by its other reward."""
    rewards = {"faces": {"weight": 0.0}, "motion": {"floor": 0.99}, "scoring": {"patience": 99}}
    made = []
    for weight in (0.0, 2.0):
        objective = {"method": "awm", "face_credit": weight}
        changed = recipe(tiny_directory, prompts, objective=objective, rewards=rewards)
        with pytest.warns(UserWarning, match="sees no face"):
            made.append(adapter(train_policy(changed, tmp_path / str(weight), device="cpu")))
    assert same(*made)
    with pytest.raises(InputError, match="face_credit needs rewards.faces"):
        recipe(tiny_directory, prompts, objective={"method": "awm", "face_credit": 1.0})


class Brightness:
    """A measurer that sees everybody at one place, the more like themselves the brighter the video is."""

    def reports(self, rollouts: Sequence[Rollout]) -> list[IdentityReport]:
        return [self._report(rollout) for rollout in rollouts]

    known = reports

    def _report(self, rollout: Rollout) -> IdentityReport:
        likeness, zero = (float(rollout.frames.float().mean()) / 255,), (0.0,)
        one = PersonReport("", ((0.0, 0.0, 24.0, 24.0),), likeness, (True,), None, zero, zero, zero)
        return IdentityReport("none", 0.4, (0,), (one,) * len(rollout.references), (1,), (), ())


def test_each_video_is_credited_with_its_own_faces(
    tiny_directory: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is matched of the brighter video of each group weighs more than 0, of the other less."""
    monkeypatch.setattr(Measurer, "load", lambda config: Brightness())
    seen, matching = list[tuple[Chunk, Tensor]](), Learner.matching

    def watched(self: Learner, chunk: Chunk, *given: Any) -> None:
        seen.append((chunk, given[-1]))
        matching(self, chunk, *given)

    monkeypatch.setattr(Learner, "matching", watched)
    rewards, made = {"faces": {"weight": 0.0}, "motion": {"floor": 0.99}}, []
    for weight in (0.0, 2.0):
        objective = {"method": "awm", "face_credit": weight}
        changed = recipe(tiny_directory, prompts, steps=1, objective=objective, rewards=rewards)
        made.append(adapter(train_policy(changed, tmp_path / str(weight), device="cpu")))
    assert not same(*made)
    assert [faces is None for _, faces in seen] == [True] * 3 + [False] * 3
    for chunk, faces in seen[3:]:
        first, second = (float(rollout.frames.float().mean()) for rollout in chunk.rollouts)
        assert first != second
        brighter, darker = faces if first > second else faces.flip(0)
        assert brighter.sum() > 0 > darker.sum() and torch.allclose(brighter, -darker)


def test_the_best_of_a_group_is_better_than_another(
    tiny_directory: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of groups whose videos are all alike, as the reward sees them, none is learned from."""
    learned, matching = list[float](), Learner.matching

    def watched(self: Learner, chunk: Chunk, rows: Sequence[int], weights: Tensor, *given: Any) -> None:
        learned.extend(weights.tolist())
        matching(self, chunk, rows, weights, *given)

    monkeypatch.setattr(Learner, "matching", watched)
    tables = {0: [0.1, 0.2], 1: [0.3, 0.3]}
    monkeypatch.setattr(
        "igrpo_sdk.training.rewards.guards.MotionGuard.score",
        lambda self, rollouts: [tables.get(r.group, [0.0, 0.0])[k] for k, r in enumerate(rollouts)],
    )
    changed = recipe(tiny_directory, prompts, steps=1, objective={"method": "best_of_n"})
    train_policy(changed, tmp_path, device="cpu")
    assert sorted(learned) == [0.0, 0.0, 1.0]


def test_resumed_is_unbroken(
    tiny_directory: Path, prompts: Path, tmp_path: Path, unbroken: dict[str, Tensor]
) -> None:
    train_policy(recipe(tiny_directory, prompts, steps=1), tmp_path, device="cpu")
    made = train_policy(recipe(tiny_directory, prompts), tmp_path, "auto", "cpu")
    assert same(adapter(made), unbroken)


def test_killed_anywhere_is_unbroken(
    tiny_directory: Path,
    prompts: Path,
    tmp_path: Path,
    unbroken: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kill -9 at 20 random moments, in as many runs as that takes; each ends as one left alone.

    After the model is loaded: that writes nothing, and each forked run has a copy of its own.
    """
    model = load_pipeline(recipe(tiny_directory, prompts), device="cpu", dtype=torch.float32)
    monkeypatch.setattr(trainer, "load_pipeline", lambda *_, **__: model)
    what, dice = recipe(tiny_directory, prompts), random.Random(0)
    status, whole = run_or_kill(what, tmp_path / "alone")
    assert status == 0
    kills, runs, ended = 0, 0, False
    while kills < 20 or not ended:
        # Half a run is enough to be killed anywhere: the next one begins where this one had come to.
        patience = dice.uniform(0.01, whole / 2) if kills < 20 else math.inf
        folder = tmp_path / str(runs)
        status, _ = run_or_kill(what, folder, patience)
        ended = status is not None
        if ended:
            assert status == 0 and same(adapter(folder / "adapter"), unbroken)
            runs += 1
        else:
            kills += 1


def run_or_kill(what: PolicyRecipe, folder: Path, seconds: float = math.inf) -> tuple[int | None, float]:
    """Train in a forked child, which has everything loaded already: (its status, its processor seconds).

    The status is None if it was killed, after `seconds` of the processor: a busy machine changes nothing.
    """
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        try:
            train_policy(what, folder, "auto", "cpu")
            os._exit(0)
        except BaseException:
            os._exit(1)
    watched, used = psutil.Process(child), 0.0
    while used < seconds:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage.ru_utime + usage.ru_stime
        times = watched.cpu_times()
        used = times.user + times.system
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, used


def words_of(folder: Path, content: dict[str, Any]) -> list[str]:
    """The words after `igrpo train`: the recipe on CPUs, writing to `folder`/run."""
    file, run = write_recipe(folder, content), folder / "run"
    return f"policy --recipe {file} --device cpu --resume auto --output {run}".split()


def launch(folder: Path, content: dict[str, Any]) -> subprocess.Popen[str]:
    """The recipe as two processes that torchrun starts and watches, with all that they import."""
    # On CPUs `accelerate launch --num_processes 2` starts one process, without a word.
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.Popen(
        [sys.executable, *two, "-m", "igrpo_sdk.training", *words_of(folder, content)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train_two(nursery: Nursery, folder: Path, content: dict[str, Any], start: str = "") -> None:
    """The recipe as two processes of the nursery, which have to succeed; `start`: Python to begin with."""
    code = f"import sys; from igrpo_sdk.commands.dispatch import main\n{start}\n"
    code += "sys.exit(main(['train', *sys.argv[1:]]))"
    for process in pair(nursery, ["-c", code, *words_of(folder, content)], folder / "said"):
        assert process.wait() == 0, process.stderr[-2000:]


def test_two_processes_learn_what_one_does(
    nursery: Nursery, tiny_directory: Path, prompts: Path, tmp_path: Path, unbroken: dict[str, Tensor]
) -> None:
    """With three groups for two of them."""
    train_two(nursery, tmp_path, settings(tiny_directory, prompts))
    assert read_log(tmp_path / "run", "begin")[-1]["processes"] == 2
    for name, value in adapter(tmp_path / "run" / "adapter").items():
        torch.testing.assert_close(value, unbroken[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("objective", [{}, {"method": "awm", "kl": 0.1}])
def test_two_processes_learn_the_same_with_the_model_spread_over_them(
    nursery: Nursery, tiny_directory: Path, prompts: Path, tmp_path: Path, objective: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {
        "objective": objective,
        "steps": 2,
        "checkpointing": True,
        "update": {"groups": 4, "learning_rate": 1e-3},
        "evaluation": {"every": 1, "count": 2, "batch": 1, "prompts": {"source": str(prompts)}},
    }
    whole = train_policy(recipe(tiny_directory, prompts, **changes), tmp_path / "whole", device="cpu")
    train_two(nursery, tmp_path, settings(tiny_directory, prompts, **changes, sharded=True))
    assert read_log(tmp_path / "run", "begin")[-1]["processes"] == 2
    for name, value in adapter(tmp_path / "run" / "adapter").items():
        torch.testing.assert_close(value, adapter(whole)[name], rtol=1e-3, atol=1e-5)
    assert (tmp_path / "run" / "adapter" / "igrpo.json").read_bytes() == (whole / "igrpo.json").read_bytes()


def test_the_clock_of_any_process_ends_the_run(
    nursery: Nursery, tiny_directory: Path, prompts: Path, tmp_path: Path
) -> None:
    """Which differ: here the first has no time at all."""
    start = (
        "from igrpo_sdk.training.policy import trainer\n"
        "trainer._Run.elapsed = property(lambda run: 9.0 if run.processes.first and run.step else 0.0)\n"
    )
    train_two(nursery, tmp_path, settings(tiny_directory, prompts, steps=100, max_seconds=5.0), start)
    assert read_log(tmp_path / "run", "step")[-1]["step"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update": {"groups": 3}}, "groups=3"),
        ({"update": {"groups": 6, "updates": 2}}, "in 2 updates"),
        ({"compile": True}, "compile"),
        ({"rollout": {"members": 2, "batch": 4}}, "rollout.batch=4"),
        ({"evaluation": {"count": 3, "batch": 1}}, "evaluation.count=3"),
    ],
)
def test_a_spread_model_runs_in_lockstep(changes: dict[str, Any], message: str) -> None:
    even: dict[str, Any] = {"update": {"groups": 4}, "evaluation": {"count": 2, "batch": 1}}
    rewards = {"rewards": {"motion": {"floor": 0.5}}, "steps": 1}
    check_lockstep(build(PolicyRecipe, {**rewards, **even}), 2)
    with pytest.raises(InputError, match=message):
        check_lockstep(build(PolicyRecipe, {**rewards, **even, **changes}), 2)
    with pytest.raises(InputError, match="accelerate launch"):
        check_lockstep(build(PolicyRecipe, {**rewards, **even}), 1)


def test_two_processes_go_on_where_one_was(
    nursery: Nursery, tiny_directory: Path, prompts: Path, tmp_path: Path, unbroken: dict[str, Tensor]
) -> None:
    train_policy(recipe(tiny_directory, prompts, steps=1), tmp_path / "run", device="cpu")
    train_two(nursery, tmp_path, settings(tiny_directory, prompts))
    assert read_log(tmp_path / "run", "begin")[-1]["processes"] == 2
    for name, value in adapter(tmp_path / "run" / "adapter").items():
        torch.testing.assert_close(value, unbroken[name], rtol=1e-3, atol=1e-5)


def test_t13_one_killed_process_ends_the_others(tiny_directory: Path, prompts: Path, tmp_path: Path) -> None:
    process = launch(tmp_path, {**settings(tiny_directory, prompts), "steps": 10_000})
    try:
        while not list_checkpoints(tmp_path / "run" / "checkpoints"):
            assert process.poll() is None
            time.sleep(0.2)
        assert read_log(tmp_path / "run", "begin")[-1]["processes"] == 2
        workers = psutil.Process(process.pid).children(recursive=True)
        victim = next(worker for worker in workers if "policy" in worker.cmdline())
        victim.kill()
        assert process.wait() != 0
        _, alive = psutil.wait_procs(workers, timeout=300)
        assert not alive
    finally:
        process.kill()
        process.communicate()


def test_a_changed_recipe_is_refused_with_the_difference(
    tiny_directory: Path, prompts: Path, tmp_path: Path
) -> None:
    train_policy(recipe(tiny_directory, prompts, steps=1), tmp_path, device="cpu")
    changed = recipe(tiny_directory, prompts, window={"size": 2, "first": 1, "last": 2})
    with pytest.raises(InputError, match=r"window\.size: 1 -> 2"):
        train_policy(changed, tmp_path, "auto", "cpu")
    with pytest.raises(InputError, match="holds an earlier run"):
        train_policy(recipe(tiny_directory, prompts), tmp_path, device="cpu")
    check_same_recipe({"steps": 1, "a": {"b": 2}}, {"steps": 9, "a": {"b": 2}})


def test_what_cannot_be_trained(tiny_directory: Path, prompts: Path, tmp_path: Path) -> None:
    few = {"groups": 7, "learning_rate": 1e-3}
    with pytest.raises(InputError, match="6 rows for 7 groups"):
        train_policy(recipe(tiny_directory, prompts, update=few), tmp_path, device="cpu")
    with pytest.raises(InputError, match="of 4 steps the last to train is 2"):
        train_policy(recipe(tiny_directory, prompts, window={"last": 3}), tmp_path, device="cpu")
    none = recipe(tiny_directory, prompts, lora={"noise_levels": (0.01, 0.02)}, objective={"method": "awm"})
    with pytest.raises(InputError, match=r"lora\.noise_levels=\(0.01, 0.02\): none of the sampler's"):
        train_policy(none, tmp_path, device="cpu")
    lost = tmp_path / "lost.jsonl"
    lost.write_text('{"references": ["nobody.png"], "prompt": "one"}\n')
    with pytest.raises(InputError, match=r"line 1: references: .*nobody.png' is no file"):
        train_policy(recipe(tiny_directory, lost), tmp_path, device="cpu")


def test_pictures_are_read_before_a_model(prompts: Path, tmp_path: Path) -> None:
    """Those to train on and those to evaluate with; all that are damaged are named."""
    damaged = write_prompts(tmp_path)
    for name in ("1-0.png", "2-2.png"):
        (tmp_path / name).write_bytes(b"")
    for trained, evaluated in ((damaged, prompts), (prompts, damaged)):
        evaluation = {"prompts": {"source": str(evaluated)}}
        changed = recipe(tmp_path / "no-model", trained, evaluation=evaluation)
        with pytest.raises(InputError, match="pictures that cannot be used") as caught:
            train_policy(changed, tmp_path / "out", device="cpu")
        for line, name in (("line-2", "1-0.png"), ("line-3", "2-2.png")):
            pattern = rf"prompts.jsonl', {line}: reference '.*{name}': the file is empty"
            assert re.search(pattern, str(caught.value))


def test_what_a_recipe_cannot_be(tiny_directory: Path, prompts: Path) -> None:
    for update in (
        {"groups": 3, "updates": 2},
        {"learning_rate": 0.0},
        {"weight_decay": -1.0},
        {"beta2": 1.0},
    ):
        with pytest.raises(InputError, match="update"):
            recipe(tiny_directory, prompts, update=update)
    twice = {"groups": 4, "updates": 2}
    with pytest.raises(InputError, match="awm learns from a rollout once"):
        recipe(tiny_directory, prompts, update=twice, objective={"method": "awm"})
    with pytest.raises(InputError, match="would all be one"):
        recipe(tiny_directory, prompts, rollout={"same_noise": True}, objective={"method": "best_of_n"})
    both = {"objective": {"unconditional_gradient": True}, "lora": {"guidance": 3.0}}
    with pytest.raises(InputError, match="is the base's with lora.guidance"):
        recipe(tiny_directory, prompts, **both)
    some = {"noise_levels": (0.5, 0.6)}
    with pytest.raises(InputError, match=r"lora\.noise_levels=.*needs the adapter in all steps"):
        recipe(tiny_directory, prompts, lora=some)


def test_rewards_that_score_nobody_end_the_run(tiny_directory: Path, prompts: Path, tmp_path: Path) -> None:
    """These pictures show no faces: nothing is learned from nothing, and the run says so and stops."""
    faces = {"faces": {"weight": 1.0}, "scoring": {"patience": 2}}
    with (
        pytest.warns(UserWarning, match="have no score"),
        pytest.raises(RewardError, match="none of the last 2 batches"),
    ):
        train_policy(recipe(tiny_directory, prompts, rewards=faces), tmp_path, device="cpu")


def test_a_step_in_which_nobody_is_scored_is_skipped(
    tiny_directory: Path, prompts: Path, tmp_path: Path
) -> None:
    faces = {"faces": {"weight": 1.0}, "scoring": {"patience": 100}}
    with pytest.warns(UserWarning, match="have no score"):
        made = train_policy(recipe(tiny_directory, prompts, rewards=faces), tmp_path, device="cpu")
    assert all(row["skipped"] == 1 and row["missing/faces"] == 1 for row in read_log(tmp_path, "step"))
    assert not any(value.any() for name, value in adapter(made).items() if "lora_B" in name)


def test_a_gradient_that_is_not_finite_changes_nothing(
    tiny_directory: Path, prompts: Path, tmp_path: Path
) -> None:
    """A first update of a size that no later step survives; the checkpoint after it is the last."""
    wild = {"groups": 3, "learning_rate": 1e30, "average": 0.5}
    with pytest.raises(NumericsError, match="not finite|norm is"):
        train_policy(recipe(tiny_directory, prompts, update=wild), tmp_path, device="cpu")
    [path] = list_checkpoints(tmp_path / "checkpoints")
    assert all(value.isfinite().all() for value in load(path).parts["adapter"].values())


def test_prompts_are_evaluated_by_their_number_of_references(prompts: Path) -> None:
    """A compiled model knows few shapes: rows and references of a batch."""
    source = make_prompts(PromptConfig(str(prompts)), 0, "validation", lambda *_: None)
    evaluator = Evaluator.__new__(Evaluator)
    evaluator._config, evaluator._processes = EvaluationConfig(count=18, batch=4), Processes("cpu")
    evaluator._prompts = [source.prompt(number) for number in range(18)]
    batches = list(evaluator._batches())
    assert sorted(number for some in batches for number in some) == list(range(18))
    counts = [{len(evaluator._prompts[number].references) for number in some} for some in batches]
    assert counts == [{1}, {1}, {2}, {2}, {3}, {3}] and {len(some) for some in batches} == {4, 2}


def test_a_recipe_is_evaluated_at_its_size(tiny_directory: Path, prompts: Path) -> None:
    small = {"height": 96, "width": 96, "num_frames": 5, "fps": 8.0}
    pipe = load_pipeline(recipe(tiny_directory, prompts, geometry=small), device="cpu")
    assert pipe.preset.geometry == Geometry(**small)


def test_the_alarm() -> None:
    """A guard or the reward that falls twice in a row, the other rising or falling with it."""
    for last, guard, reason in (
        (0.8, -0.3, "gamed: faces rose from 0.500 to 0.800 while motion fell from 0.000 to -0.300"),
        (0.1, -0.3, "breaks: faces fell from 0.500 to 0.100, motion fell from 0.000 to -0.300"),
        (0.1, 0.1, "breaks: faces fell from 0.500 to 0.100"),
        (0.45, -0.3, "breaks: motion fell from 0.000 to -0.300"),
    ):
        alarm = Evaluator.__new__(Evaluator)
        alarm._alarm = Alarm("faces", ("motion",), drop=0.1, patience=2)
        alarm.state = {"first": None, "fallen": []}
        told = [
            alarm.alarm(step, {"faces": faces, "motion": motion})
            for step, faces, motion in (
                (0, 0.5, 0.0),
                (2, 0.6, -0.2),
                (4, 0.6, -0.05),
                (6, 0.7, -0.2),
                (6, 0.7, -0.2),  # resumed
                (8, last, guard),
            )
        ]
        assert told[:-1] == [None] * 5
        assert told[-1] is not None and told[-1].endswith(reason)
    with pytest.raises(InputError, match="needs a reward and guards"):
        Alarm(reward="faces")


def test_the_alarm_ends_the_run_and_writes_no_adapter(
    tiny_directory: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can go on with another alarm; one that watches what is not there is refused."""
    monkeypatch.setattr(Evaluator, "alarm", lambda self, step, numbers: "it breaks" if step == 2 else None)
    watched = {"reward": "motion", "guards": ("motion",)}
    with pytest.raises(AlarmError, match=r"step 2: it breaks\. .* a larger alarm.drop"):
        train_policy(recipe(tiny_directory, prompts, alarm=watched), tmp_path, device="cpu")
    assert not (tmp_path / "adapter").exists() and read_log(tmp_path, "alarm")[-1]["reason"] == "it breaks"
    monkeypatch.undo()
    lenient = recipe(tiny_directory, prompts, alarm={**watched, "drop": 9.0})
    assert train_policy(lenient, tmp_path, "auto", "cpu").is_dir()
    assert [row["step"] for row in read_log(tmp_path, "step")] == [1, 2, 3]
    for key, alarm in (("reward", {"reward": "face"}), ("guards", {"guards": ("motion", "face")})):
        with pytest.raises(InputError, match=rf"alarm.{key}: 'face' is no reward of this recipe; use motion"):
            recipe(tiny_directory, prompts, alarm={**watched, **alarm})
