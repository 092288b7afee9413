"""The tokenizer: words of the captions, any other text in characters, the same after saving and loading."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import WanVACEPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.pretrain.tokenizer import MAX_LENGTH, train_tokenizer
from igrpo_sdk.training.world.captions import captions
from igrpo_sdk.training.world.scenes import sample_scene

USER_TEXTS = (
    "Two people talk and laugh in front of a blue wall; the left one nods.",
    "A WIZARD & 3 zebras (dancing) @ 5pm!? <b>naïve</b> \u201cquoted\u201d \u2014 50% #1",
    "emoji \U0001f600\U0001f44d\U0001f3fd \U0001f469\u200d\U0001f469\u200d\U0001f467 and 日本語 и кириллица",
    "tabs\tand\nnew lines\r\n  spaces\u00a0here",
    "",
)


@cache
def texts() -> list[str]:
    """Captions of training scenes, then as many that the tokenizer does not see."""
    return captions([sample_scene(seed, "train") for seed in range(4000)], range(4000))


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(texts()[:3000])


def test_special_tokens_and_size() -> None:
    assert [tokenizer().pad_token_id, tokenizer().eos_token_id, tokenizer().unk_token_id] == [0, 1, 2]
    assert 200 < len(tokenizer()) <= 1024
    assert len(train_tokenizer(texts()[:300], vocab_size=128)) == 128
    assert tokenizer().model_max_length == MAX_LENGTH


def test_captions_are_words_and_fit() -> None:
    """Nothing is unknown, almost nothing is spelled, the longest caption has room to spare."""
    ids = tokenizer()(texts()).input_ids
    assert max(map(len, ids)) <= MAX_LENGTH - 16
    assert all(row[-1] == 1 and 2 not in row for row in ids)
    spelled = sum(tokenizer().convert_tokens_to_ids("\u2581") in row for row in ids)
    assert spelled <= 4, "every word of the grammar is a token"


def test_case_accents_and_punctuation_do_not_change_words() -> None:
    expected = tokenizer()("the first person , left ; nods .").input_ids
    for text in (
        "The first person, left; nods.",
        "THE FIRST PERSON,left;NODS.",
        "thé  first\nperson , left;nods .",
    ):
        assert tokenizer()(text).input_ids == expected
    assert tokenizer()("the second person, left; nods.").input_ids != expected
    assert (
        tokenizer()("in a garden \u2013 \u201cgarden\u201d").input_ids
        == tokenizer()('in a garden - "garden"').input_ids
    )


def test_other_words_are_spelled_not_unknown() -> None:
    ids = tokenizer()("Xylophone Qq7 ~{}|^\\ don't").input_ids
    assert 2 not in ids
    assert tokenizer().tokenize("xyz") == ["\u2581", "x", "y", "z"]
    assert 2 in tokenizer()("\U0001f600").input_ids


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_encoded(text: str) -> None:
    ids = tokenizer()(text, add_special_tokens=True).input_ids
    assert ids[-1] == 1
    assert all(0 <= i < len(tokenizer()) for i in ids)


@pytest.mark.parametrize("loader", [PreTrainedTokenizerFast, AutoTokenizer])
def test_saved_and_loaded_gives_equal_ids(
    loader: type[PreTrainedTokenizerFast] | type[AutoTokenizer], tmp_path: Path
) -> None:
    tokenizer().save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is PreTrainedTokenizerFast
    assert len(loaded) == len(tokenizer())
    assert loaded.model_max_length == MAX_LENGTH
    for text in (*USER_TEXTS, *texts()[-200:]):
        assert loaded(text).input_ids == tokenizer()(text).input_ids


def test_as_the_stock_pipeline_calls_it() -> None:
    prompts = [USER_TEXTS[0], "word " * 300, ""]
    out = tokenizer()(
        prompts,
        padding="max_length",
        max_length=MAX_LENGTH,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    assert out.input_ids.shape == out.attention_mask.shape == (3, MAX_LENGTH)
    assert torch.equal(out.attention_mask.bool(), out.input_ids != 0)
    assert out.input_ids[1, -1] == 1, "a truncated prompt still ends with </s>"
    assert out.attention_mask.sum(1).tolist()[2] == 1, "an empty prompt is </s> alone"


def test_training_is_deterministic() -> None:
    """Also in another process, and whatever the order of the captions."""
    program = (
        "import sys; from igrpo_sdk.training.pretrain.tokenizer import train_tokenizer; "
        "sys.stdout.write(train_tokenizer(sys.stdin.read().splitlines()).backend_tokenizer.to_str())"
    )
    lines = texts()[:500]
    other = subprocess.run(
        [sys.executable, "-c", program], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    assert train_tokenizer(reversed(lines)).backend_tokenizer.to_str() == other.stdout


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="hold no words"):
        train_tokenizer([])
    with pytest.raises(InputError, match="vocab_size 50 leaves no room"):
        train_tokenizer(["a"], vocab_size=50)


def test_folding_takes_variants_away_and_leaves_the_rest() -> None:
    normalize = tokenizer().backend_tokenizer.normalizer.normalize_str
    assert normalize("\u00c9\u00ef\u017f \ufb01 Stra\u00dfe \u2460\u2122") == "eis fi strasse 1tm"
    assert (
        normalize("\u2018\u2019`\u00b4 \u00ab\u201d\u2033 \u2013\u2014\u2212 a\u200db\u00adc")
        == "'''' \"\"\" --- abc"
    )
    others = "\u0438\u65e5\U0001f600 0~{}|^\\"
    assert normalize(others) == others


SHIPPED_IDS = (
    [105, 102, 251, 88, 246, 74, 90, 89, 77, 130, 82, 94, 72, 79, 92, 128, 75, 1],
    [
        77, 3, 64, 50, 67, 42, 59, 45, 3, 9, 153, 3, 67, 46, 43, 59, 42, 60, 118, 3, 45, 42, 55, 44, 50, 55,
        48, 119, 3, 35, 3, 24, 57, 54, 3, 4, 3, 34, 3, 31, 3, 43, 3, 33, 3, 55, 42, 50, 63, 46, 3, 31, 3, 18,
        3, 43, 3, 33, 3, 5, 3, 58, 62, 56, 61, 46, 45, 3, 5, 172, 3, 24, 19, 3, 8, 3, 6, 99, 1,
    ],
    [3, 46, 54, 56, 51, 50, 3, 2, 3, 2, 88, 3, 2, 3, 2, 3, 2, 1],
    [3, 61, 42, 43, 60, 88, 3, 55, 46, 64, 3, 53, 50, 55, 46, 60, 3, 60, 57, 42, 44, 46, 60, 215, 46, 1],
    [1],
)  # fmt: skip
"""What the shipped tokenizer, which folds by a character map, has always made of `USER_TEXTS`."""


def test_the_shipped_tokenizer_gives_the_ids_that_its_encoder_knows(root: Path) -> None:
    shipped = AutoTokenizer.from_pretrained(root / "igrpo_sdk" / "assets" / "tiny-vace" / "tokenizer")
    assert tuple(shipped(list(USER_TEXTS)).input_ids) == SHIPPED_IDS


def test_tokenizers_made_today_part_text_as_the_shipped_one_does(root: Path) -> None:
    """The same pieces of captions and of what users write, as far as both know the words."""
    shipped = AutoTokenizer.from_pretrained(root / "igrpo_sdk" / "assets" / "tiny-vace" / "tokenizer")
    known = set(shipped.get_vocab()) & set(tokenizer().get_vocab())
    alike = 0
    for text in (*USER_TEXTS, *texts()[-200:]):
        one, other = shipped.tokenize(text), tokenizer().tokenize(text)
        assert "".join(one) == "".join(other)
        if known.issuperset([*one, *other]):
            assert one == other
            alike += 1
    assert alike > 100


def test_a_pipeline_keeps_it(tiny_directory: Path, tmp_path: Path) -> None:
    """Saved and loaded by diffusers."""
    pipeline = WanVACEPipeline.from_pretrained(tiny_directory)
    pipeline.tokenizer = tokenizer()
    pipeline.save_pretrained(tmp_path)
    loaded = WanVACEPipeline.from_pretrained(tmp_path).tokenizer
    assert type(loaded) is PreTrainedTokenizerFast and loaded.model_max_length == MAX_LENGTH
    for text in (*USER_TEXTS, *texts()[-50:]):
        assert loaded(text).input_ids == tokenizer()(text).input_ids
