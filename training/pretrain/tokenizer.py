"""The tokenizer of the tiny models: a Unigram model over the words of the captions.

Folding takes case, accents and typographic variants away ("The" is "the", a curly quote is a straight one):
captions are too few to teach a tiny encoder that they mean the same. Punctuation but the apostrophe stands
alone. Unknown words are spelled in characters; what has no plain form in ASCII, such as emoji, is `<unk>`.

It is a `PreTrainedTokenizerFast`, which is saved and loaded with all of that: transformers' `T5Tokenizer`
drops normaliser and pre-tokenizer without a word when it is loaded.

The pieces are whole words with their frequencies, which is the Unigram model of highest likelihood as long
as all words fit. `UnigramTrainer` of `tokenizers` does not find it: its candidates are strings that recur
in different words, so that "first" fell into "f", "i", "rst"; and its result changes from run to run.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from igrpo_sdk.errors import InputError

__all__ = ["MAX_LENGTH", "SPECIAL_TOKENS", "train_tokenizer"]

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
"""Ids 0, 1 and 2, as in T5 and UMT5."""
MAX_LENGTH = 128
"""Tokens of a prompt at most, the closing `</s>` included."""

_SPACE = "\u2581"  # marks the start of a word in a piece
_ALPHABET = (_SPACE, *(chr(code) for code in range(33, 127) if not chr(code).isupper()))
_TYPOGRAPHY = {
    "'": "\u2018\u2019\u201a\u201b\u2032\u0060\u00b4",
    '"': "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212",
    "": "\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff\u00ad",  # invisible: joiners and selectors
}
_PUNCTUATION = re.escape(string.punctuation.replace("'", ""))
_ALPHABET_PENALTY = 10.0  # nats a character costs more than the rarest word: spelling is the last resort


def train_tokenizer(captions: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """Make the tokenizer from captions; the same captions give the same tokenizer.

    Args:
        captions: texts, some ten thousand are plenty.
        vocab_size: tokens at most: the special tokens, the characters of folded ASCII, and as many words as
            fit, the most frequent first. With fewer words fewer come out: the text encoder takes
            `len(tokenizer)`.

    Returns:
        A tokenizer whose copy from `save_pretrained` and `from_pretrained` (or `AutoTokenizer`) gives equal
        ids.

    Raises:
        InputError: no caption holds a word, or `vocab_size` leaves no room for one.
    """
    normalizer, words = _normalizer(), _words()
    normal = (normalizer.normalize_str(text) for text in captions)
    counts = Counter(word for text in normal for word, _ in words.pre_tokenize_str(text))
    room = vocab_size - len(SPECIAL_TOKENS) - len(_ALPHABET)
    if room < 1:
        raise InputError(
            f"vocab_size {vocab_size} leaves no room for words: use {vocab_size - room + 1} or more"
        )
    if not counts:
        raise InputError("captions hold no words: the tokenizer is made from them, give at least one")
    return PreTrainedTokenizerFast(
        tokenizer_object=_backend(models.Unigram(_pieces(counts, room), unk_id=2)),
        pad_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[1],
        unk_token=SPECIAL_TOKENS[2],
        model_max_length=MAX_LENGTH,
    )


def _normalizer() -> normalizers.Normalizer:
    """Folds characters, see the head of this module."""
    plain = [normalizers.Replace(Regex(f"[{chars}]"), text) for text, chars in _TYPOGRAPHY.items()]
    folded = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    return normalizers.Sequence([*plain, *folded, normalizers.Replace("\u00df", "ss")])


def _words() -> pre_tokenizers.PreTokenizer:
    """Parts text at spaces and around punctuation."""
    punctuation = pre_tokenizers.Split(Regex(f"[{_PUNCTUATION}]"), "isolated")
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), punctuation])


def _pieces(counts: Counter[str], room: int) -> list[tuple[str, float]]:
    """Pieces with their log-probabilities: special tokens, characters, words by falling frequency."""
    words = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:room]
    total = sum(count for _, count in words)
    pieces = [(_SPACE + word, math.log(count / total)) for word, count in words]
    floor = pieces[-1][1] - _ALPHABET_PENALTY
    return [(token, 0.0) for token in SPECIAL_TOKENS] + [(char, floor) for char in _ALPHABET] + pieces


def _backend(model: models.Unigram) -> Tokenizer:
    """The model with what stands in front of it and behind."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer()
    metaspace = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_words(), metaspace])
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", SPECIAL_TOKENS.index("</s>"))]
    )
    return tokenizer
