"""People are pure functions of integers: numbers, vectors, looks, splits, and what a caption may say."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from igrpo_sdk.training.world.hashing import mix, uniforms
from igrpo_sdk.training.world.identities import (
    COLUMN,
    FACE_RANGES,
    HAIR_COLOURS,
    HAIR_STYLES,
    LOOK_RANGES,
    NAMES,
    SKIN_RGB,
    SKINS,
    SPLITS,
    TOP_COLOURS,
    appearance,
    appearances,
    identity_vectors,
    skin_index,
)

FACE, LOOK = slice(0, len(FACE_RANGES)), slice(len(FACE_RANGES), None)
CHOICES = {"noun", "beard", "moustache", "glasses", "mole", "hair_style", "hair_colour", "top_colour"}
SCALED_BY_NOUN = {"brow_thickness", "lip_red", "jaw_taper"}
ODD_KEYS = [0, 1, -1, 7, 949_999, 950_000, 2**62 + 5, 2**63 - 1, -(2**63)]
MASK = 2**64 - 1


def people(count: int, first: int = 0) -> Tensor:
    return torch.arange(first, first + count)


# ---- random numbers


def reference_mix(x: int) -> int:
    """SplitMix64's finaliser in Python's integers, unsigned."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def test_the_mixer_is_splitmix64() -> None:
    """The first outputs of SplitMix64 seeded with 1234567, as widely published."""
    golden = 0x9E3779B97F4A7C15
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    states = [(1234567 + k * golden) & MASK for k in (1, 2, 3, 4)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in states])
    assert [x & MASK for x in mix(signed).tolist()] == published


@pytest.mark.parametrize("stream", [0, 1, 5, 2**20])
def test_uniforms_of_any_key_follow_the_formula(stream: int) -> None:
    golden = 0x9E3779B97F4A7C15
    expected = []
    for key in ODD_KEYS:
        base = reference_mix(key * golden & MASK)
        counters = [(base + (k + (stream << 32)) * golden) & MASK for k in (1, 2, 3)]
        expected.append([(reference_mix(c) >> 40) / 2**24 for c in counters])
    assert uniforms(torch.tensor(ODD_KEYS), 3, stream).tolist() == expected


def test_uniforms_do_not_depend_on_the_batch() -> None:
    keys = torch.tensor(ODD_KEYS)
    whole = uniforms(keys, 40, 3)
    assert torch.equal(uniforms(keys.flip(0), 40, 3), whole.flip(0))
    assert torch.equal(torch.cat([uniforms(k[None], 40, 3) for k in keys]), whole)
    assert torch.equal(uniforms(keys, 5, 3), whole[:, :5])


@pytest.mark.parametrize("first", [0, -20_000, 2**61])
def test_uniforms_are_uniform(first: int) -> None:
    """Chi squared over 64 bins for neighbouring keys, at each of 8 positions."""
    count, bins = 40_000, 64
    drawn = uniforms(people(count, first), 8, 1)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for column in (drawn * bins).long().T:
        counts = torch.bincount(column, minlength=bins).double()
        chi2 = float(((counts - count / bins) ** 2).sum() / (count / bins))
        assert 20 < chi2 < 130, "63 degrees of freedom: mean 63, deviation 11"


def test_positions_streams_and_neighbouring_keys_are_independent() -> None:
    count = 40_000
    columns = [uniforms(people(count), 6, stream) for stream in (1, 2, 3)]
    columns.append(uniforms(people(count, 1), 6, 1))  # the next person
    columns.append(uniforms(people(count) * 3, 6, 1))  # as scenes make keys of seeds
    table = torch.cat([columns[0][1:], *(c[1:] for c in columns[1:])], 1)
    correlation = torch.corrcoef(table.T.double()) - torch.eye(table.shape[1])
    assert correlation.abs().max() < 5 / count**0.5


# ---- vectors


def test_vectors_do_not_depend_on_batch_or_order() -> None:
    indices = torch.tensor([0, 1, 17, 899_999, 900_000, 949_999, 950_000, 999_999])
    looks = torch.tensor([-1, 0, 3, -1, 2**40, 5, 0, 1])
    whole = identity_vectors(indices, looks)
    assert whole.dtype == torch.float32
    assert whole.shape == (8, len(NAMES))
    assert torch.equal(identity_vectors(indices.flip(0), looks.flip(0)), whole.flip(0))
    for index, look, row in zip(indices, looks, whole, strict=True):
        assert torch.equal(identity_vectors(index[None], look[None])[0], row)


def test_people_stay_who_they_are() -> None:
    """Shipped models, the judge's mean and published numbers know these people: they must not change."""
    indices = torch.tensor([0, 1, 123_456, 900_000, 950_000, 999_999])
    vectors = identity_vectors(indices, torch.tensor([-1, -1, 7, -1, -1, 0]))
    thousandths = (vectors.double() * 1000).round().to(torch.int64)
    digest = hashlib.sha256(str(thousandths.tolist()).encode()).hexdigest()
    assert digest == "f94bfb4fcb295172c03410f07964b2f542c7e62048b35569e6b1ef2a58186b92"


def test_measures_lie_in_their_ranges() -> None:
    vectors = identity_vectors(people(5000))
    for name, (low, high) in (FACE_RANGES | LOOK_RANGES).items():
        column = vectors[:, COLUMN[name]]
        if name in CHOICES | SCALED_BY_NOUN:
            continue
        assert low <= column.min() < low + 0.01 * (high - low), name
        assert high - 0.01 * (high - low) < column.max() <= high, name


def test_everybody_has_another_face() -> None:
    vectors = identity_vectors(torch.cat([people(20_000), people(20_000, 950_000)]))
    continuous = [COLUMN[n] for n in FACE_RANGES if n not in CHOICES]
    assert len(torch.unique(vectors[:, continuous], dim=0)) == len(vectors)
    assert len(torch.unique(vectors[:, COLUMN["head_width"]])) > 0.99 * len(vectors)


def test_men_and_women() -> None:
    vectors = identity_vectors(people(20_000))
    man = vectors[:, COLUMN["noun"]] == 1
    assert set(vectors[:, COLUMN["noun"]].tolist()) == {0.0, 1.0}
    assert 0.48 < man.float().mean() < 0.52
    assert vectors[~man][:, [COLUMN["beard"], COLUMN["moustache"]]].sum() == 0
    assert not (vectors[~man][:, COLUMN["hair_style"]] == HAIR_STYLES.index("bald")).any()
    for share, name in ((0.36, "beard"), (0.30, "moustache"), (0.30, "glasses")):
        assert abs(float(vectors[man][:, COLUMN[name]].mean()) - share) < 0.02
    styles = [set(vectors[kind][:, COLUMN["hair_style"]].tolist()) for kind in (man, ~man)]
    assert styles == [{0.0, 1.0, 2.0, 3.0, 4.0}, {1.0, 2.0, 3.0, 4.0}]


# ---- looks


def test_a_look_redraws_hair_and_clothes_and_nothing_else() -> None:
    indices = people(2000)
    own = identity_vectors(indices)
    other = identity_vectors(indices, torch.zeros_like(indices))
    another = identity_vectors(indices, torch.ones_like(indices))
    assert torch.equal(own[:, FACE], other[:, FACE])
    assert torch.equal(own[:, FACE], another[:, FACE])
    for a, b in ((own, other), (own, another), (other, another)):
        assert (a[:, LOOK] != b[:, LOOK]).any(1).all()
        assert (
            abs(float((a[:, COLUMN["top_colour"]] == b[:, COLUMN["top_colour"]]).float().mean()) - 0.1) < 0.03
        )


def test_a_negative_look_is_the_own_one() -> None:
    indices = people(50)
    assert torch.equal(identity_vectors(indices, torch.full_like(indices, -1)), identity_vectors(indices))
    assert appearance(5) == appearance(5, None)


def test_the_same_look_is_another_one_on_another_person() -> None:
    vectors = identity_vectors(people(2000), torch.full((2000,), 3))[:, LOOK]
    assert len(torch.unique(vectors, dim=0)) == 2000


# ---- splits


def test_splits_share_nobody() -> None:
    assert set(SPLITS) == {"train", "validation", "test"}
    ends = sorted((r.start, r.stop) for r in SPLITS.values())
    assert all(before[1] <= after[0] for before, after in zip(ends, ends[1:], strict=False))
    assert all(r.step == 1 and len(r) >= 10_000 for r in SPLITS.values())


# ---- what is visible


def test_appearance_agrees_with_the_vector() -> None:
    indices = people(3000)
    for looks in (torch.full_like(indices, -1), indices % 5):
        vectors = identity_vectors(indices, looks)
        found = appearances(vectors)
        for row, one in zip(vectors.tolist(), found, strict=True):
            value = dict(zip(NAMES, row, strict=True))
            assert one.noun == ("woman", "man")[int(value["noun"])]
            assert (one.beard, one.moustache, one.glasses) == tuple(
                value[name] == 1 for name in ("beard", "moustache", "glasses")
            )
            assert one.hair_style == HAIR_STYLES[int(value["hair_style"])]
            assert one.top_colour == TOP_COLOURS[int(value["top_colour"])]
            hair = HAIR_COLOURS[int(value["hair_colour"])]
            assert one.hair_colour == (None if one.hair_style == "bald" else hair)
            assert abs(SKINS.index(one.skin) - value["skin_tone"] * (len(SKINS) - 1)) <= 0.5
    assert appearance(1234) == appearances(identity_vectors(torch.tensor([1234])))[0]
    assert appearance(12, 4) == appearances(identity_vectors(torch.tensor([12]), torch.tensor([4])))[0]


def test_every_word_is_said_of_somebody() -> None:
    found = appearances(identity_vectors(people(3000)))
    assert {one.hair_style for one in found} == set(HAIR_STYLES)
    assert {one.hair_colour for one in found} == {*HAIR_COLOURS, None}
    assert {one.top_colour for one in found} == set(TOP_COLOURS)
    assert {one.skin for one in found} == set(SKINS)


def test_skin_index_is_the_nearest_stop() -> None:
    assert [skin_index(tone) for tone in (0.0, 0.12, 0.13, 0.5, 0.87, 0.88, 1.0)] == [0, 0, 1, 2, 3, 4, 4]
    assert len(SKIN_RGB) == len(SKINS)
