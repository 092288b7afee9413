"""The tokenizer: words of the captions, any other text in characters, the same after saving and loading."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoTokenizer, T5Tokenizer

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.pretrain.charsmap import folding, precompiled_charsmap
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
def tokenizer() -> T5Tokenizer:
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


@pytest.mark.parametrize("loader", [T5Tokenizer, AutoTokenizer])
def test_saved_and_loaded_gives_equal_ids(
    loader: type[T5Tokenizer] | type[AutoTokenizer], tmp_path: Path
) -> None:
    tokenizer().save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is T5Tokenizer
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


def test_character_map_is_read_as_written() -> None:
    """Every key is replaced and no other character touched, in the reader that the tokenizer uses."""
    table = folding()
    normalizer = normalizers.Precompiled(precompiled_charsmap(table))
    for char, text in table.items():
        assert normalizer.normalize_str(f"x{char}y") == f"x{text}y"
    others = [chr(code) for code in range(1, 0x3000) if chr(code) not in table]
    assert all(normalizer.normalize_str(char) == char for char in others)
    assert normalizers.Precompiled(precompiled_charsmap({"a": "b"})).normalize_str("banana") == "bbnbnb"
