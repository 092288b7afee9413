"""GRPO for a video model: the loop.

Method: Identity-GRPO (arXiv 2510.14256) with the choices of docs/alignment.md. A step makes the videos of
some groups, scores them, and updates the adapter by each video's advantage over its group.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from igrpo_sdk.adapters.info import AdapterInfo
from igrpo_sdk.adapters.lora import save_adapter
from igrpo_sdk.adapters.read import read_adapter
from igrpo_sdk.adapters.use import check_belongs
from igrpo_sdk.backbones.switching import AdapterUse, adapter_parameters
from igrpo_sdk.errors import InputError, NumericsError
from igrpo_sdk.identity.report import IdentityReport
from igrpo_sdk.inputs import check_given
from igrpo_sdk.sampling import make_solver

from ..common import checkpoint
from ..common.average import Average
from ..rewards.composition import make_rewards
from ..rewards.scoring import Pending, Scorer
from ..rewards.terms import Shared
from .advantages import best_member, group_advantages, score_table
from .config import PolicyRecipe, check_same_recipe, plain
from .credit import face_credit
from .log import PolicyLog
from .model import load_pipeline, prepare_transformer
from .processes import Processes, quick_threads
from .prompts import DrawnAhead, check_files
from .rollout import Chunk, EncodedGroups, Group, Video, encode_groups, make_chunks
from .sharding import check_lockstep
from .update import Learner, Sums, levels_within
from .validation import AlarmError, Evaluator

__all__ = ["train_policy"]


def train_policy(recipe: PolicyRecipe, output: Path, resume: str | None = None, device: str = "auto") -> Path:
    """Align a model; writes the averaged adapter to `output/adapter`.

    Checkpoints go to `output/checkpoints`, numbers to `output/metrics.jsonl` and TensorBoard's files to
    `output/tensorboard`. `resume`: as `checkpoint.find`; the recipe must then be the one it was begun with.

    Raises InputError for a recipe that does not fit the model or its data, NumericsError for a loss that is
    not finite, RewardError when rewards fail again and again, AlarmError when the alarm stops the run: all is
    saved then, but no adapter is written.
    """
    with quick_threads():
        return _train(_Run(recipe, output, device), resume)


def _train(run: _Run, resume: str | None) -> Path:
    run.restore(resume)
    with run.prompts, run.scorer, run.log:
        run.log.event("begin", run.step, run.elapsed, run.facts)
        run.evaluate()
        while not run.finished:
            with run.log.timed("rollout"):
                parts = [run.roll(groups) for groups in run.take_groups()]
            with run.log.timed("waiting_for_scores"):
                run.draw_next()
                advantages = run.advantages(parts)
            with run.log.timed("update"):
                for part in parts:
                    run.update(part, advantages, run.credit(part))
            run.finish_step()
            run.evaluate()
        run.save()
    return run.export()


class _Run:
    """The state of a run, and the stages of a step."""

    def __init__(self, recipe: PolicyRecipe, output: Path, device: str) -> None:
        if output.is_file():
            raise InputError(f"output {str(output)!r}: is a file; give a folder")
        self.recipe, self.output, self.step = recipe, output, 0
        self._behind, self._start = 0.0, time.monotonic()
        scoring = recipe.rewards.scoring
        self.processes = Processes(device, scoring.patience * scoring.timeout)
        if recipe.sharded:
            check_lockstep(recipe, self.processes.count)
        if self.processes.first:
            check_files(recipe.prompts, recipe.evaluation.prompts)  # loading the model takes longer
        dtype = getattr(torch, recipe.dtype)
        self.pipe = load_pipeline(recipe, device=self.processes.device, dtype=dtype)
        self.settings = recipe.rollout.settings(self.pipe.preset)
        if recipe.objective.by_steps:
            recipe.window.check(self.settings.steps)
        self._choose_use()
        check = partial(check_given, backbone=self.pipe.backbone, preset=self.pipe.preset)
        self.prompts = DrawnAhead(recipe.prompts, recipe.seed, "train", check)
        _check_enough(self.prompts.distinct, recipe.update.groups)
        self.weights = recipe.rewards.weights()
        # Before the weights are spread: the mark is that of the whole.
        initial = recipe.lora.initial
        made_from: tuple[str, ...] = ()
        if initial is not None:
            file = read_adapter(initial)
            check_belongs(file, self.pipe.preset, self.pipe.backbone)
            made_from = (file.mark,)
        self.info = AdapterInfo.of(
            self.pipe.preset, self.pipe.backbone, ", ".join(self.weights), made_from=made_from
        )
        self._add_adapter()
        if recipe.compile:
            self.pipe.backbone.compile_decoder(dtype)
        shared = Shared(recipe.rewards.measuring, self.processes.device)
        self.measurer = shared.measurer if recipe.objective.face_credit else None
        self.scorer = Scorer(make_rewards(recipe.rewards, shared), recipe.rewards.scoring)
        self.evaluator = Evaluator(recipe.evaluation, recipe.alarm, self.pipe, self.scorer, self.processes)
        self.learner = Learner(
            self.pipe.backbone, recipe.objective, self.settings.guidance, recipe.update.updates == 1
        )
        self.log = PolicyLog(output, self.processes.first)
        self.sums = Sums()
        self._next: list[EncodedGroups] = []

    def _choose_use(self) -> None:
        """Say how the adapter is used. Raises InputError unless the sampler has a level there to train."""
        preset, use = self.pipe.preset, self.recipe.lora.use
        timesteps = make_solver(preset.solver, self.settings.steps, preset.flow_shift).timesteps
        if not len(levels_within(timesteps, use)):
            shown = ", ".join(f"{level:.3f}" for level in levels_within(timesteps, AdapterUse()).tolist())
            raise InputError(
                f"lora.noise_levels={use.noise_levels}: none of the sampler's is there ({shown})"
            )
        self.pipe.backbone.adapter_use = use

    def _add_adapter(self) -> None:
        update, backbone = self.recipe.update, self.pipe.backbone
        self.parameters = prepare_transformer(backbone, self.recipe, self.processes)
        self.average = Average({"transformer": backbone.transformer}, update.average)
        # Log-probabilities are means over elements, so gradients are tiny: eps=1e-8 would slow learning.
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            update.learning_rate,
            (0.9, update.beta2),
            eps=1e-14,
            weight_decay=update.weight_decay,
        )

    @property
    def elapsed(self) -> float:
        """Seconds of the run, earlier parts included."""
        return self._behind + time.monotonic() - self._start

    @property
    def facts(self) -> dict[str, int | str]:
        """What the run runs on."""
        count = sum(parameter.numel() for parameter in self.parameters)
        device = str(self.processes.device)
        return {"processes": self.processes.count, "device": device, "trained_parameters": count}

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the time is over, by the clock of any process."""
        limit = self.recipe.max_seconds
        late = limit is not None and any(self.processes.gather([self.elapsed >= limit]))
        return late or self.step >= self.recipe.steps

    def evaluate(self) -> None:
        """Evaluate the averaged adapter if it is time to. Raises AlarmError if the alarm says to stop."""
        if self.step % self.recipe.evaluation.every:
            return
        with self.average.applied():
            found = self.evaluator.evaluate()
        if self.recipe.evaluation.keep:
            self.export(f"adapters/step-{self.step}")
        self.log.event("evaluation", self.step, self.elapsed, found.numbers)
        self.log.videos("evaluation", self.step, found.frames)
        reason = self.evaluator.alarm(self.step, found.numbers)
        if reason is not None:
            self.log.event("alarm", self.step, self.elapsed, {"reason": reason})
            self.save()
            raise AlarmError(
                f"step {self.step}: {reason}. The run is saved in {self.output}, its adapter is not written; "
                "begin anew with more weight on what fell, a larger objective.kl or a lower "
                "update.learning_rate, or go on all the same with --resume auto and a larger alarm.drop"
            )

    def take_groups(self) -> list[EncodedGroups]:
        """This process's groups of the step, a list for each update."""
        taken, self._next = self._next or self._draw(self.step), []
        return taken

    def draw_next(self) -> None:
        """Draw and encode the groups of the next step, if there is one: a GPU has nothing else to do while
        scores are awaited.
        """
        if self.step + 1 < self.recipe.steps:
            self._next = self._draw(self.step + 1)

    def _draw(self, step: int) -> list[EncodedGroups]:
        """This process's groups of a step, encoded; the prompts of the step after it are begun with."""
        mine = self._numbers(step)
        self.prompts.begin(number for part in mine for number in part)
        if step + 1 < self.recipe.steps:
            self.prompts.begin(number for part in self._numbers(step + 1) for number in part)
        return [
            encode_groups(
                self.pipe.backbone,
                self.settings,
                [Group(number, self.prompts.prompt(number)) for number in part],
            )
            for part in mine
        ]

    def _numbers(self, step: int) -> list[list[int]]:
        """The numbers of this process's groups of a step, a list for each update."""
        update = self.recipe.update
        numbers = range(step * update.groups, (step + 1) * update.groups)
        size = update.groups // update.updates
        parts = [numbers[start : start + size] for start in range(0, update.groups, size)]
        return [self.processes.share(part) for part in parts]

    def roll(self, groups: EncodedGroups) -> list[tuple[Chunk, Pending]]:
        """Make the videos of groups; each chunk is scored while the next is made."""
        pipe, recipe = self.pipe, self.recipe
        window = recipe.window_of(self.step, self.settings.steps)
        chunks = make_chunks(
            pipe.backbone, pipe.preset, recipe.rollout, self.settings, groups, window, recipe.seed
        )
        return [(chunk, self.scorer.submit(chunk.rollouts)) for chunk in chunks]

    def advantages(self, parts: list[list[tuple[Chunk, Pending]]]) -> dict[Video, float]:
        """The advantage of every video, by (group, member), from the scores of all processes."""
        mine = [
            (*video, {name: scores[k] for name, scores in terms.items()})
            for part in parts
            for chunk, handle in part
            for terms in [handle.result()]
            for k, video in enumerate(chunk.videos)
        ]
        everyone = sorted(self.processes.gather(mine), key=lambda row: row[:2])
        members = self.recipe.rollout.members
        tables = {
            name: score_table([terms[name] for _, _, terms in everyone], members) for name in self.weights
        }
        config = self.recipe.advantage
        made = group_advantages(tables, self.weights, config.combination, config.std_floor, config.clip)
        self.log.scores(tables, made)
        return {row[:2]: value for row, value in zip(everyone, made.flatten().tolist(), strict=True)}

    def credit(self, part: list[tuple[Chunk, Pending]]) -> dict[Video, Tensor]:
        """What latents of faces weigh beside the advantage of the video; nothing without `face_credit`."""
        if self.measurer is None:
            return {}
        reports = dict[Video, IdentityReport | None]()
        for chunk, _ in part:
            reports.update(zip(chunk.videos, self.measurer.known(chunk.rollouts), strict=True))
        if not reports:  # more processes than groups
            return {}
        chunk, config = part[0][0], self.recipe.advantage
        return face_credit(
            reports,
            chunk.cell,
            chunk.trajectory.video_latents.shape[2:],
            config.std_floor,
            config.clip,
        )

    def update(
        self,
        part: list[tuple[Chunk, Pending]],
        advantages: Mapping[Video, float],
        credit: Mapping[Video, Tensor],
    ) -> None:
        """One optimiser update from the videos of all processes, if there is anything to learn from them."""
        recipe = self.recipe
        # Nobody was scored, or all alike; every process sees the same.
        if not (any(advantages.values()) or recipe.objective.face_credit):
            self.sums.add(skipped=torch.ones(()))
            return
        groups = recipe.update.groups // recipe.update.updates
        self.optimizer.zero_grad()
        for chunk, _ in part:
            self.learn(chunk, advantages, credit, groups)
        self.processes.sum_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.update.clip_norm)
        if not torch.isfinite(norm):
            raise NumericsError(
                f"step {self.step}: the gradient's norm is {float(norm)}; resume from the last checkpoint "
                "with a lower update.learning_rate"
            )
        self.sums.add(gradient_norm=norm)
        self.optimizer.step()
        self.average.update(self.step)

    def learn(
        self, chunk: Chunk, advantages: Mapping[Video, float], credit: Mapping[Video, Tensor], groups: int
    ) -> None:
        """Add the gradient of a chunk, by the method of the recipe; `groups` are in the update."""
        objective, videos = self.recipe.objective, groups * self.recipe.rollout.members
        keys = chunk.videos
        values = torch.tensor([advantages[key] for key in keys], dtype=torch.float64)
        if objective.method == "grpo":
            self.learner.grpo(chunk, values, videos * len(chunk.trajectory.transitions), self.sums)
        elif objective.method == "awm":
            faces = torch.stack([credit[key] for key in keys]) if credit else None
            count = videos * objective.draws
            self.learner.matching(chunk, range(len(keys)), values, count, self.sums, faces)
        else:
            best = [row for row, key in enumerate(keys) if key == best_member(advantages, key[0])]
            # Of a group that nobody was scored of, or that is all alike, none is better than another. It is
            # passed through all the same: with a sharded model others would wait.
            weights = (values[best] > 0).double()
            self.learner.matching(chunk, best, weights, groups * objective.draws, self.sums)

    def finish_step(self) -> None:
        """Count the step, write its numbers, and a checkpoint if it is time to."""
        self.step += 1
        pairs = self.processes.gather([self.sums.as_pairs()])
        self.sums = Sums()
        self.log.step(self.step, self.elapsed, pairs, self.scorer.counts)
        if self.step % self.recipe.checkpoint_every == 0:
            self.save()

    def save(self) -> None:
        """Write everything the run needs to go on."""
        states = self.processes.gather([checkpoint.random_states()])
        if self.processes.first:
            named = adapter_parameters(self.pipe.backbone.transformer)
            parts = {
                "adapter": {name: parameter.detach() for name, parameter in named.items()},
                "average": self.average.weights,
                "optimizer": self.optimizer.state_dict(),
                "random": states,
                "state": {
                    "elapsed": self.elapsed,
                    "recipe": plain(self.recipe),
                    "evaluator": self.evaluator.state,
                },
            }
            checkpoint.save(self.output / "checkpoints", self.step, parts)
        self.processes.wait()

    def restore(self, resume: str | None) -> None:
        """Set everything from the checkpoint that `resume` names, if there is one."""
        found = checkpoint.find(self.output / "checkpoints", resume)
        if found is None:
            return
        state = found.parts["state"]
        check_same_recipe(state["recipe"], plain(self.recipe))
        named = adapter_parameters(self.pipe.backbone.transformer)
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(found.parts["adapter"][name])
        self.average.load(found.parts["average"])
        self.optimizer.load_state_dict(found.parts["optimizer"])
        self.evaluator.state = state["evaluator"]
        self.step, self._behind = found.step, state["elapsed"]
        states = found.parts["random"]
        if len(states) == self.processes.count:
            checkpoint.restore_random_states(states[self.processes.rank])

    def export(self, name: str = "adapter") -> Path:
        """Write the averaged adapter to a folder of the output."""
        target = self.output / name
        if self.processes.first:
            with self.average.applied():
                transformer = self.pipe.backbone.transformer
                save_adapter(target, transformer, self.info, overwrite=True)
        self.processes.wait()
        return target


def _check_enough(distinct: int | None, groups: int) -> None:
    if distinct is not None and distinct < groups:
        raise InputError(
            f"prompts: {distinct} rows for {groups} groups a step; give more rows, or fewer update.groups"
        )
