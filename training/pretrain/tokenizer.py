"""The tokenizer of the tiny models: a Unigram model over the words of the captions, as a stock T5 tokenizer.

`T5Tokenizer` of transformers rebuilds itself from `tokenizer.json` when it is loaded: of the file it keeps
the pieces, the post-processor and a SentencePiece character map, and drops every other normaliser and
pre-tokenizer without a word. So text is folded by such a map (`charsmap.py`) and not by the NFKC and
Lowercase normalisers of `tokenizers`, which would be gone after `from_pretrained`.

Folding takes case, accents and typographic variants away ("The" is "the", a curly quote is a straight one):
captions are too few to teach a tiny encoder that they mean the same. Unknown words are spelled in
characters; what has no plain form in ASCII, such as emoji, is `<unk>`.

The pieces are whole words with their frequencies, which is the Unigram model of highest likelihood as long
as all words fit. `UnigramTrainer` of `tokenizers` does not find it: its candidates are strings that recur
in different words, so that "first" fell into "f", "i", "rst"; and its result changes from run to run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import T5Tokenizer

from igrpo_sdk.errors import InputError

from .charsmap import folding, precompiled_charsmap

__all__ = ["MAX_LENGTH", "SPECIAL_TOKENS", "train_tokenizer"]

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
"""Ids 0, 1 and 2, as in T5 and UMT5."""
MAX_LENGTH = 128
"""Tokens of a prompt at most, the closing `</s>` included."""

_SPACE = "\u2581"  # marks the start of a word in a piece
_ALPHABET = (_SPACE, *(chr(code) for code in range(33, 127) if not chr(code).isupper()))
_ALPHABET_PENALTY = 10.0  # nats a character costs more than the rarest word: spelling is the last resort


def train_tokenizer(captions: Iterable[str], vocab_size: int = 1024) -> T5Tokenizer:
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
    normalizer = normalizers.Precompiled(_charsmap())
    counts = Counter(word for text in captions for word in normalizer.normalize_str(text).split())
    room = vocab_size - len(SPECIAL_TOKENS) - len(_ALPHABET)
    if room < 1:
        raise InputError(
            f"vocab_size {vocab_size} leaves no room for words: use {vocab_size - room + 1} or more"
        )
    if not counts:
        raise InputError("captions hold no words: the tokenizer is made from them, give at least one")
    return T5Tokenizer(
        tokenizer_object=_backend(models.Unigram(_pieces(counts, room), unk_id=2), normalizer),
        pad_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[1],
        unk_token=SPECIAL_TOKENS[2],
        extra_ids=0,
        model_max_length=MAX_LENGTH,
    )


@cache
def _charsmap() -> bytes:
    return precompiled_charsmap(folding())


def _pieces(counts: Counter[str], room: int) -> list[tuple[str, float]]:
    """Pieces with their log-probabilities: special tokens, characters, words by falling frequency."""
    words = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:room]
    total = sum(count for _, count in words)
    pieces = [(_SPACE + word, math.log(count / total)) for word, count in words]
    floor = pieces[-1][1] - _ALPHABET_PENALTY
    return [(token, 0.0) for token in SPECIAL_TOKENS] + [(char, floor) for char in _ALPHABET] + pieces


def _backend(model: models.Unigram, normalizer: normalizers.Normalizer) -> Tokenizer:
    """Put around the model what `T5Tokenizer` puts there when it loads."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    metaspace = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", SPECIAL_TOKENS.index("</s>"))]
    )
    return tokenizer
