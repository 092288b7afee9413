"""Prompts refined by any callable and by a real, tiny Qwen2.5-VL: what is used, told and refused."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from lora import make_adapter
from PIL import Image
from qwen import DESCRIPTIONS, person, tiny_model
from safetensors.torch import load_file, save_file
from tiny import people, tiny_pipeline
from transformers import AutoTokenizer

from igrpo_sdk import QwenRefiner, Reference, refinement
from igrpo_sdk.adapters.info import AdapterInfo
from igrpo_sdk.adapters.lora import LoraSettings, add_adapter, save_adapter
from igrpo_sdk.commands.dispatch import main
from igrpo_sdk.errors import Cancelled, HubError, InputError, WeightsError
from igrpo_sdk.media.video import IdentityVideo
from igrpo_sdk.pipeline import IdentityPipeline, Progress
from igrpo_sdk.qwen import PICTURE, chat
from igrpo_sdk.refinement import complete_prompt

PROMPT = "Two people talk."


@pytest.fixture(scope="module")
def pipe() -> IdentityPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def refiner(qwen_directory: Path) -> QwenRefiner:
    return QwenRefiner.from_pretrained(qwen_directory, device="cpu")


def question(refiner: QwenRefiner, reference: Reference) -> dict[str, Any]:
    """What the model is asked about a picture."""
    return refiner._qwen.inputs([reference.image, refinement._QUESTION])


def counting(references: Sequence[Reference], prompt: str) -> str:
    """A refiner without a model."""
    return f"{prompt} {len(references)} in all."


# ---- the sentences


@pytest.mark.parametrize(
    ("prompt", "descriptions", "refined"),
    [
        ("Go.", ["a man", "a woman"], "Go. The first person is a man. The second person is a woman."),
        (" A nod ", ["A man with  a\nhat."], "A nod. The person is a man with a hat."),
        ("Why?", ['"An old man"'], "Why? The person is an old man."),
        ("Go", ["AI fan"], "Go. The person is AI fan."),
        ("They talk.", [], "They talk."),
    ],
)  # fmt: skip
def test_a_sentence_for_each_person(prompt: str, descriptions: list[str], refined: str) -> None:
    assert complete_prompt(prompt, descriptions) == refined


def test_more_people_than_there_are_words_for() -> None:
    assert complete_prompt("They talk.", ["a man"] * 11).endswith(
        "The tenth person is a man. Person 11 is a man."
    )


# ---- in a call


def test_the_refined_prompt_is_what_runs(pipe: IdentityPipeline) -> None:
    references = people(2)
    video = pipe(references, PROMPT, seed=7, refine=counting)
    written_out = pipe(references, f"{PROMPT} 2 in all.", seed=7)
    assert video.settings["prompt"] == PROMPT
    assert video.settings["refined_prompt"] == f"{PROMPT} 2 in all."
    assert written_out.settings["refined_prompt"] is None
    assert np.array_equal(video.frames, written_out.frames)
    assert not np.array_equal(video.frames, pipe(references, PROMPT, seed=7).frames)


def test_each_pair_of_a_batch_is_refined_on_its_own(pipe: IdentityPipeline) -> None:
    seen = []

    def refine(references: Sequence[Reference], prompt: str) -> str:
        seen.append((prompt, [reference.hash for reference in references]))
        return counting(references, prompt)

    groups, prompts = [people(2), people(1, 1), people(2)], [PROMPT, "A person nods.", PROMPT]
    told: list[Progress] = []
    videos = pipe(groups, prompts, seed=3, steps=1, num_videos=2, refine=refine, progress=told.append)
    assert seen == [(p, [one.hash for one in group]) for p, group in zip(prompts, groups, strict=True)]
    assert told[:4] == [Progress("refine", k, 3) for k in range(4)]
    for pair, group, prompt in zip(videos, groups, prompts, strict=True):
        for video in pair:
            assert video.settings["prompt"] == prompt
            assert video.settings["refined_prompt"] == f"{prompt} {len(group)} in all."


def test_a_call_can_be_stopped_between_prompts(pipe: IdentityPipeline) -> None:
    cancel, asked = Event(), []

    def refine(references: Sequence[Reference], prompt: str) -> str:
        asked.append(prompt)
        cancel.set()
        return prompt

    with pytest.raises(Cancelled):
        pipe([people(1), people(1)], ["one nods", "one talks"], refine=refine, cancel=cancel)
    assert asked == ["one nods"]


def test_both_videos_of_a_comparison_have_the_same_refined_prompt(tmp_path: Path) -> None:
    other = tiny_pipeline()
    add_adapter(other.backbone.transformer, LoraSettings(2, 2.0), 0)
    save_adapter(
        tmp_path / "adapter", other.backbone.transformer, AdapterInfo.of(other.preset, other.backbone)
    )
    aligned = tiny_pipeline()
    aligned.load_adapter(tmp_path / "adapter")
    words = iter(("one", "two"))
    made = aligned.compare(
        people(2), PROMPT, seed=1, steps=1, refine=lambda _, prompt: f"{prompt} {next(words)}"
    )
    assert made.base.settings["refined_prompt"] == made.aligned.settings["refined_prompt"] == f"{PROMPT} one"
    assert f"<p>refined: {PROMPT} one</p>" in made.page()


# ---- what is refused


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, "refine: returned NoneType for 'Two people talk.'; it must return the whole prompt"),
        (3, "refine: returned int"),
        (" \n", "refine: returned an empty string"),
        ("x" * 80, "tokens; random takes 64. Shorten it (refined: 'xxx"),
        ("a\x00b", "prompt: character 1 is U+0000"),
        ("The third person nods.", "'The third person', but 2 references are given"),
        ("\u4e16\u754c", "holds nothing that random reads"),
    ],
)
def test_what_a_refiner_returns_is_checked(pipe: IdentityPipeline, returned: Any, says: str) -> None:
    told: list[Progress] = []
    with pytest.raises(InputError) as caught:
        pipe(people(2), PROMPT, refine=lambda *_: returned, progress=told.append)
    assert says in str(caught.value)
    assert "refine" in str(caught.value)
    assert {one.phase for one in told} == {"refine"}


def test_the_prompt_of_a_batch_is_named(pipe: IdentityPipeline) -> None:
    with pytest.raises(InputError, match=r"^prompt\[1\]: 82 tokens; .* let refine say less"):
        pipe([people(1)] * 2, ["ab", "x"], refine=lambda _, prompt: prompt if prompt == "ab" else "x" * 80)


def test_everything_is_checked_before_the_refiner_runs(pipe: IdentityPipeline) -> None:
    def never(references: Sequence[Reference], prompt: str) -> str:
        raise AssertionError("asked")

    for wrong in ({"steps": 0}, {"height": 7}, {"seed": -1}, {"batch_size": 0}):
        with pytest.raises(InputError):
            pipe(people(2), PROMPT, refine=never, **wrong)
    for prompt in ("", "The third person nods.", "x" * 80):
        with pytest.raises(InputError):
            pipe(people(2), prompt, refine=never)


def test_what_cannot_be_called_is_no_refiner(pipe: IdentityPipeline) -> None:
    wrong: Any = "Qwen/Qwen2.5-VL-7B-Instruct"
    with pytest.raises(InputError, match="refine: 'Qwen.*give a callable"):
        pipe(people(2), PROMPT, refine=wrong)


# ---- Qwen2.5-VL


def test_the_model_looks_at_each_picture(refiner: QwenRefiner, pipe: IdentityPipeline) -> None:
    red, blue = person("red"), person("blue")
    text = refiner([blue, red], "Two talk")
    one, two = DESCRIPTIONS["blue"], DESCRIPTIONS["red"]
    assert text == f"Two talk. The first person is {one}. The second person is {two}."


def test_a_picture_is_looked_at_once(qwen_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = QwenRefiner.from_pretrained(qwen_directory, device="cpu")
    asked = []
    ask = refiner._ask
    monkeypatch.setattr(refiner, "_ask", lambda reference: asked.append(reference.hash) or ask(reference))
    red = person("red")
    assert refiner.describe(red) == refiner.describe(person("red")) == DESCRIPTIONS["red"]
    refiner([red, person("blue")], PROMPT)
    assert asked == [red.hash, person("blue").hash]


def test_the_question_is_in_qwens_chat_format(refiner: QwenRefiner) -> None:
    content = [{"type": "image"}, {"type": "text", "text": refinement._QUESTION}]
    messages = [{"role": "user", "content": content}]
    asked = refiner._qwen.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat(f"<|vision_start|>{PICTURE}<|vision_end|>{refinement._QUESTION}") == asked
    ids = question(refiner, person("red"))["input_ids"][0].tolist()
    assert refiner._qwen.tokenizer.decode(ids).replace("<|image_pad|>" * 6, "<|image_pad|>") == asked


def positions(inputs: dict[str, Any], start: int, length: int) -> torch.Tensor:
    """Time, height and width of each token by Qwen2-VL's rule: text runs on behind the larger side."""
    _, height, width = (inputs["image_grid_thw"][0] // torch.tensor([1, 2, 2])).tolist()
    before = torch.arange(start).expand(3, -1)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = start + torch.stack([torch.zeros_like(rows), rows, columns]).reshape(3, -1)
    rest = length - start - height * width
    after = start + max(height, width) + torch.arange(rest).expand(3, -1)
    return torch.cat([before, picture, after], 1)[:, None]


@torch.no_grad()
def test_generation_is_greedy_at_the_right_positions(refiner: QwenRefiner) -> None:
    """The answer with a cache is that without one, token by token, with positions worked out by hand."""
    torch.manual_seed(1)
    model = tiny_model(refiner._qwen.tokenizer).eval()  # random weights never come to an end
    model.lm_head.weight[model.config.image_token_id] = 0  # a second picture would have no pixels
    for name, weight in model.named_parameters():  # strong ones, or positions would hardly matter
        if "language_model" in name and any(part in name for part in ("q_proj.w", "k_proj.w", "v_proj.w")):
            torch.nn.init.normal_(weight, std=0.5)
    inputs = question(refiner, person("red", 90))
    start = inputs["input_ids"][0].tolist().index(model.config.image_token_id)
    config = copy.deepcopy(refiner._qwen.model.generation_config)
    config.update(max_new_tokens=12, return_dict_in_generate=True, output_logits=True)
    made = model.generate(
        **inputs,
        generation_config=config,
    )
    ids = inputs["input_ids"]
    pictures = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
    for logits in made.logits:
        where = positions(inputs, start, ids.shape[1])
        wanted = model(input_ids=ids, position_ids=where, **pictures).logits[:, -1]
        assert torch.allclose(wanted, logits, atol=1e-4)
        ids = torch.cat([ids, wanted.argmax(-1, keepdim=True)], 1)
    assert torch.equal(ids, made.sequences)
    plain = model(input_ids=inputs["input_ids"], **pictures).logits[:, -1]
    assert not torch.allclose(plain, made.logits[0], atol=1e-2), "positions do not matter here"


def test_large_pictures_are_made_smaller(refiner: QwenRefiner) -> None:
    large = Reference.load(np.zeros((3000, 2000, 3), np.uint8))
    assert question(refiner, large)["mm_token_type_ids"].sum() <= 399_360 / 28**2


def test_an_answer_without_end_is_refused(refiner: QwenRefiner) -> None:
    random = QwenRefiner(tiny_model(refiner._qwen.tokenizer), refiner._qwen.tokenizer, refiner._qwen.images)
    with pytest.raises(InputError, match="refine: reference: no end after 96 tokens; use an Instruct model"):
        random.describe(person("red"))


def test_an_empty_answer_is_refused(refiner: QwenRefiner, tmp_path: Path) -> None:
    model = tiny_model(refiner._qwen.tokenizer)
    with torch.no_grad():  # every token but the end mark is unlikely
        model.lm_head.weight.zero_()
        model.model.language_model.norm.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(refiner._qwen.tokenizer)))
        model.lm_head.bias[refiner._qwen.tokenizer.convert_tokens_to_ids("<|im_end|>")] = 1.0
    path = tmp_path / "ann.png"
    Image.fromarray(person("red").image).save(path)
    silent = QwenRefiner(model, refiner._qwen.tokenizer, refiner._qwen.images)
    with pytest.raises(InputError, match=r"reference '.*ann.png': the model says nothing of it"):
        silent.describe(Reference.load(path))


# ---- loading


@pytest.mark.parametrize("name", ["", "no-such-thing", "a/b/c", Path("nowhere")])
def test_a_name_that_is_nothing(name: Any) -> None:
    with pytest.raises(InputError, match="refine: .* is no directory or Hub repository; give a Qwen2.5-VL"):
        QwenRefiner.from_pretrained(name)


def test_a_repository_that_cannot_be_had() -> None:
    with pytest.raises(HubError, match="refine: model nobody/nothing: .* Check the name, the network"):
        QwenRefiner.from_pretrained("nobody/nothing", device="cpu")


def test_a_device_that_is_not_there(qwen_directory: Path) -> None:
    with pytest.raises(InputError, match="device: 'cuda:77'"):
        QwenRefiner.from_pretrained(qwen_directory, device="cuda:77")


def test_another_model_is_refused(tiny_directory: Path) -> None:
    with pytest.raises(WeightsError, match="is a umt5; give a Qwen2.5-VL"):
        QwenRefiner.from_pretrained(tiny_directory / "text_encoder", device="cpu")


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_missing_files_are_refused(qwen_directory: Path, tmp_path: Path, file: str) -> None:
    broken = shutil.copytree(qwen_directory, tmp_path / "qwen")
    (broken / file).unlink()
    with pytest.raises(WeightsError, match="refine: "):
        QwenRefiner.from_pretrained(broken, device="cpu")


def test_missing_and_damaged_weights_are_refused(qwen_directory: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(qwen_directory, tmp_path / "qwen")
    weights = load_file(broken / "model.safetensors")
    weights.pop(next(name for name in weights if "layers.1" in name))
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"refine: model .*: weights are missing \(model\..*layers\.1"):
        QwenRefiner.from_pretrained(broken, device="cpu")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="refine: model qwen: bad files"):
        QwenRefiner.from_pretrained(broken, device="cpu")


def test_the_tokenizer_of_another_model_is_refused(tiny_directory: Path, refiner: QwenRefiner) -> None:
    other = AutoTokenizer.from_pretrained(tiny_directory / "tokenizer")
    with pytest.raises(WeightsError, match=r"the tokenizer does not know <\|image_pad\|>"):
        QwenRefiner(refiner._qwen.model, other, refiner._qwen.images)


# ---- the command line


def files(folder: Path) -> list[str]:
    """Two pictures."""
    for colour in DESCRIPTIONS:
        Image.fromarray(person(colour).image).save(folder / f"{colour}.png")
    return [str(folder / f"{colour}.png") for colour in DESCRIPTIONS]


@pytest.fixture
def wide_directory(tiny_directory: Path, tmp_path: Path) -> Path:
    """The tiny model with room for a refined prompt."""
    wide = shutil.copytree(tiny_directory, tmp_path / "wide")
    preset = wide / "igrpo_preset.json"
    preset.write_text(json.dumps(json.loads(preset.read_text()) | {"max_text_tokens": 256}))
    return wide


def test_the_command_refines_and_says_so(
    wide_directory: Path, qwen_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    words = ["--prompt", PROMPT, "--model", str(wide_directory), "--refine", str(qwen_directory)]
    assert main(["generate", *files(tmp_path), *words, "-o", str(output)]) == 0
    red, blue = DESCRIPTIONS.values()
    refined = f"{PROMPT} The first person is {red}. The second person is {blue}."
    assert f"refined prompt: {refined}\n" in capsys.readouterr().out
    settings = IdentityVideo.load(output).settings
    assert (settings["prompt"], settings["refined_prompt"]) == (PROMPT, refined)
    pipe = IdentityPipeline.from_pretrained(wide_directory, device="cpu")
    words += ["--adapter", str(make_adapter(pipe, tmp_path / "adapter"))]
    assert main(["compare", *files(tmp_path), *words, "-o", str(tmp_path / "out.html")]) == 0
    assert f"refined prompt: {refined}\n" in capsys.readouterr().out
    assert refined in (tmp_path / "out.html").read_text("utf-8")


def test_a_refined_prompt_that_is_too_long_says_where_it_came_from(
    tiny_directory: Path, qwen_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompt", PROMPT, "--model", str(tiny_directory), "--refine", str(qwen_directory)]
    assert main(["generate", *files(tmp_path), *words, "-o", str(tmp_path / "out.mp4")]) == 1
    error = capsys.readouterr().err
    assert "tokens; tiny-random takes 32. Shorten it (refined: 'Two people talk. The first person" in error
    assert "let refine say less, or leave it out" in error
    assert not (tmp_path / "out.mp4").exists()


def test_the_command_names_a_refiner_that_is_none(
    tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompt", PROMPT, "--model", str(tiny_directory), "--refine", "qwen"]
    assert main(["generate", *files(tmp_path), *words, "-o", str(tmp_path / "out.mp4")]) == 1
    assert "refine: 'qwen' is no directory or Hub repository" in capsys.readouterr().err
