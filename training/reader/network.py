"""Reading a video back: what the prompt asked for, measured on the world's own ground truth.

`SceneReader` is a small network, trained on rendered scenes of training people, that reads a clip: how many
people, which background, which light, and for each place (left, middle, right) whether somebody stands
there, what they do, and what they look like. Who stands there follows from the looks: places are matched
one to one to the scene's people by the nearest appearance. So "who does what" is right for a person when
they are read at their place doing their action.

It is validated on renders of people it never saw; on generated clips its number can only be as good as that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.identity.places import PLACES
from igrpo_sdk.media.files import write_text, written_whole

from ..common.facts import Facts, PersonFacts
from ..world.face import hair_colour, pick, skin_colour
from ..world.identities import COLUMN, HAIR_STYLES, TOP_RGB, identity_vectors
from ..world.scenes import ACTIONS, BACKGROUNDS, LIGHTS, MAX_PEOPLE, Scene, actor_keys

WEIGHTS = Path(__file__).parent / "assets" / "reader.safetensors"
APPEARANCE_SIZE = 13 + len(HAIR_STYLES)
_COLOUR_WEIGHT = 2.0  # makes a clear difference of colour count as much as glasses or a beard


@dataclass(frozen=True)
class ReaderModel:
    """Sizes of the network. Frames are `height` x `width`, both divisible by 16; clips have `num_frames`
    frames.
    """

    height: int = 144
    width: int = 192
    num_frames: int = 17
    channels: tuple[int, ...] = (48, 80, 112)

    def __post_init__(self) -> None:
        if self.height % 16 or self.width % 16 or min(self.height, self.width, self.num_frames) < 1:
            raise InputError(
                f"{self}: height and width must be positive multiples of 16, num_frames at least 1"
            )
        if len(self.channels) != 3 or any(c < 8 or c % 8 for c in self.channels):
            raise InputError(f"{self}: needs three channels, each a multiple of 8")


@dataclass(frozen=True)
class Logits:
    """What the network says of B clips; places in the order of `PLACES`.

    count (B, 3), background (B, 12), light (B, 6), occupied (B, 3), action (B, 3, 11), appearance (B, 3, A).
    """

    count: Tensor
    background: Tensor
    light: Tensor
    occupied: Tensor
    action: Tensor
    appearance: Tensor


@dataclass(frozen=True)
class Reading:
    """What is read in one clip; `occupied`, `actions` and `appearance` (3, A) in the order of `PLACES`."""

    count: int
    background: str
    light: str
    occupied: tuple[bool, ...]
    actions: tuple[str, ...]
    appearance: NDArray[np.float32]

    def as_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self) | {"appearance": self.appearance.round(4).tolist()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Reading:
        """What `as_json` gave."""
        return cls(
            fields["count"],
            fields["background"],
            fields["light"],
            tuple(fields["occupied"]),
            tuple(fields["actions"]),
            np.array(fields["appearance"], np.float32),
        )


class _TemporalMix(nn.Module):
    """Adds to every channel a learned share of the frames before and after; a depth-wise convolution of
    length 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(channels, 1, 1))
        self.after = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C, h, w) -> the same shape."""
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
        return x + padded[:, :-2] * self.before + padded[:, 2:] * self.after


class _Block(nn.Module):
    """Normalise, mix in time, 3x3 convolution; a residual when the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels_in)
        self.mix = _TemporalMix(channels_in)
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C, h, w) -> (B, T, C', h', w')."""
        batch, frames = x.shape[:2]
        y = F.silu(self.mix(self.norm(x.flatten(0, 1)).unflatten(0, (batch, frames))))
        made: Tensor = self.conv(y.flatten(0, 1)).unflatten(0, (batch, frames))
        return x + made if self.residual else made


class SceneReader(nn.Module):
    """Convolutions per frame mixed in time, one query a place (and one for the scene) that looks at every
    frame, then convolutions along time on what each query saw.
    """

    def __init__(self, config: ReaderModel) -> None:
        super().__init__()
        self.config = config
        low, mid, high = config.channels
        self.stem = nn.Conv2d(48, low, 3, 1, 1)
        self.blocks = nn.Sequential(_Block(low, mid, 2), _Block(mid, mid, 1), _Block(mid, high, 2))
        tokens = (config.height // 16) * (config.width // 16)
        self.positions = nn.Parameter(0.1 * torch.randn(tokens, high))
        self.queries = nn.Parameter(0.5 * torch.randn(len(PLACES) + 1, high))
        self.norm = nn.LayerNorm(high)
        self.look = nn.MultiheadAttention(high, 4, batch_first=True)
        self.time = nn.ModuleList(nn.Conv1d(high, high, 3, 1, d, dilation=d) for d in (1, 3))
        self.scene = nn.Linear(2 * high, MAX_PEOPLE + len(BACKGROUNDS) + len(LIGHTS))
        self.place = nn.Linear(2 * high, 1 + len(ACTIONS) + APPEARANCE_SIZE)

    def forward(self, frames: Tensor) -> Logits:
        """Read float frames (B, T, 3, H, W) in [-1, 1]."""
        batch, num_frames = frames.shape[:2]
        x = F.pixel_unshuffle(frames.flatten(0, 1), 4)
        x = self.blocks(self.stem(x).unflatten(0, (batch, num_frames)))
        tokens = self.norm(x.flatten(0, 1).flatten(2).transpose(1, 2) + self.positions)  # (B*T, tokens, C)
        queries = self.queries.to(tokens.dtype).expand(len(tokens), -1, -1)
        seen, _ = self.look(queries, tokens, tokens, need_weights=False)  # (B*T, 4, C)
        track = seen.unflatten(0, (batch, num_frames)).permute(0, 2, 3, 1).flatten(0, 1)  # (B*4, C, T)
        for conv in self.time:
            track = track + F.silu(conv(track))
        pooled = torch.cat([track.mean(-1), track.amax(-1)], -1).view(batch, len(PLACES) + 1, -1)
        count, background, light = self.scene(pooled[:, -1]).split(
            [MAX_PEOPLE, len(BACKGROUNDS), len(LIGHTS)], -1
        )
        sizes = [1, len(ACTIONS), APPEARANCE_SIZE]
        occupied, action, looks = self.place(pooled[:, :-1]).split(sizes, -1)
        return Logits(count, background, light, occupied.squeeze(-1), action, looks)

    @torch.no_grad()
    def read(self, videos: NDArray[np.uint8], batch: int = 8) -> list[Reading]:
        """Read clips uint8 (B, T, H, W, 3) of the geometry the reader was trained for, `batch` at a time;
        InputError for another.
        """
        config = self.config
        expected = (config.num_frames, config.height, config.width, 3)
        if videos.dtype != np.uint8 or videos.shape[1:] != expected:
            raise InputError(
                f"videos are {videos.dtype} {videos.shape}: the reader takes uint8 clips of {expected}"
            )
        device = self.stem.weight.device
        batches = torch.from_numpy(videos).split(batch)
        return [one for clips in batches for one in readings_of(self(to_input(clips.to(device))))]


def to_input(frames: Tensor) -> Tensor:
    """uint8 (B, T, H, W, 3) as the network's float32 (B, T, 3, H, W) in [-1, 1]."""
    return frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1


def readings_of(logits: Logits) -> list[Reading]:
    """The most likely reading of every clip."""
    count, background = logits.count.argmax(-1).tolist(), logits.background.argmax(-1).tolist()
    light, action = logits.light.argmax(-1).tolist(), logits.action.argmax(-1).tolist()
    occupied = (logits.occupied > 0).tolist()
    looks = logits.appearance.detach().float().cpu().numpy()
    return [
        Reading(
            count=count[b] + 1,
            background=BACKGROUNDS[background[b]],
            light=LIGHTS[light[b]],
            occupied=tuple(occupied[b]),
            actions=tuple(ACTIONS[k] for k in action[b]),
            appearance=looks[b],
        )
        for b in range(len(looks))
    ]


def appearance_vectors(vectors: Tensor) -> Tensor:
    """What of a person can be read from afar, from identity vectors (N, D): float32 (N, A).

    Colours of skin, hair (the skin's for the bald) and top, glasses, beard, moustache, man, and the hair
    style.
    """
    p = {name: vectors[:, column].view(-1, 1, 1) for name, column in COLUMN.items()}
    style = F.one_hot(vectors[:, COLUMN["hair_style"]].long(), len(HAIR_STYLES)).float()
    skin, hair = skin_colour(p).flatten(1), hair_colour(p).flatten(1)
    hair = torch.where(style[:, :1] > 0, skin, hair)  # style 0 is bald
    top = (pick(p["top_colour"], TOP_RGB) * (1 + p["top_shade"].unsqueeze(-1))).clamp(0, 1).flatten(1)
    flags = vectors[:, [COLUMN[name] for name in ("glasses", "beard", "moustache", "noun")]]
    return torch.cat([_COLOUR_WEIGHT * skin, _COLOUR_WEIGHT * hair, _COLOUR_WEIGHT * top, flags, style], 1)


@lru_cache(64)
def actor_appearances(scene: Scene) -> NDArray[np.float32]:
    """True appearance vectors (P, A) of a scene's actors, in reference order; not to be written to."""
    made = appearance_vectors(identity_vectors(*actor_keys(scene.actors))).numpy().astype(np.float32)
    made.flags.writeable = False  # all videos of a scene share it
    return made


@lru_cache(64)
def facts_of(scene: Scene) -> Facts:
    """The facts of a scene's video, as `follow` checks them."""
    people = zip(scene.actors, actor_appearances(scene).tolist(), strict=True)
    found = tuple(PersonFacts(actor.place, actor.action, tuple(looks)) for actor, looks in people)
    return Facts(found, scene.background, scene.light)


@dataclass(frozen=True)
class Followed:
    """How one clip follows its prompt. `place`, `action` and `does` have one entry a person, in reference
    order.

    place: the person is read at their place. action: at the prompt's place for this person the prompt's
    action is read.
    does: both, that is this person does this here.
    """

    count: bool
    background: bool
    light: bool
    place: tuple[bool, ...]
    action: tuple[bool, ...]
    does: tuple[bool, ...]

    @property
    def strict(self) -> bool:
        """Background right and everybody doing the right thing at the right place."""
        return self.background and all(self.does)


def follow(reading: Reading, facts: Facts) -> Followed:
    """Compare a reading with what the prompt described.

    People are matched to the places read as occupied, one to one, with the least summed distance of
    appearance; a person for whom no place is left is wrong. Raises InputError for facts in words or numbers
    that the reader does not know.
    """
    _check(facts)
    occupied = [k for k, taken in enumerate(reading.occupied) if taken]
    truth = np.array([person.appearance for person in facts.people], np.float32)
    distance = np.linalg.norm(truth[:, None] - reading.appearance[occupied][None], axis=-1)
    people, columns = linear_sum_assignment(distance)
    stands = {int(i): PLACES[occupied[c]] for i, c in zip(people, columns, strict=True)}
    place = tuple(stands.get(i) == person.place for i, person in enumerate(facts.people))
    action = tuple(reading.actions[PLACES.index(person.place)] == person.action for person in facts.people)
    return Followed(
        count=reading.count == len(facts.people),
        background=reading.background == facts.background,
        light=reading.light == facts.light,
        place=place,
        action=action,
        does=tuple(p and a for p, a in zip(place, action, strict=True)),
    )


def _check(facts: Facts) -> None:
    """Refuse what no reading says: it would be counted as a fault of the video."""
    known = [("background", facts.background, BACKGROUNDS), ("light", facts.light, LIGHTS)]
    known += [("action", person.action, ACTIONS) for person in facts.people]
    for name, value, words in known:
        if value not in words:
            raise InputError(f"{name} {value!r} is unknown: use one of {', '.join(words)}")
    sizes = {len(person.appearance) for person in facts.people}
    if sizes != {APPEARANCE_SIZE}:
        raise InputError(f"appearance of {sorted(sizes)} numbers: give {APPEARANCE_SIZE} of each person")


def background_share(clips: Sequence[Followed]) -> float | None:
    """Share of clips on the right background; None of none."""
    return sum(clip.background for clip in clips) / len(clips) if clips else None


def who_does_what_share(clips: Sequence[Followed]) -> float | None:
    """Share of people who do the right thing at the right place; None of none."""
    people = [right for clip in clips for right in clip.does]
    return sum(people) / len(people) if people else None


def prompt_following(clips: Sequence[Followed]) -> float | None:
    """The mean of `background_share` and `who_does_what_share`; None of no clips."""
    background, does = background_share(clips), who_does_what_share(clips)
    return None if background is None or does is None else (background + does) / 2


def save_reader(reader: SceneReader, weights: Path) -> None:
    """Write the weights in half precision as safetensors, and the sizes as JSON beside them."""
    state = {name: value.half().contiguous().cpu() for name, value in reader.state_dict().items()}
    write_text(weights.with_suffix(".json"), json.dumps(asdict(reader.config)) + "\n")
    with written_whole(weights, overwrite=True) as partial:
        partial.write_bytes(save(state))


def load_reader(weights: Path = WEIGHTS) -> SceneReader:
    """The reader from its files, in float32; WeightsError when they are missing or do not fit."""
    try:
        sizes = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        reader = SceneReader(ReaderModel(**{**sizes, "channels": tuple(sizes["channels"])}))
        reader.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        remedy = "train it with: igrpo train world --recipe tiny_reader"
        raise WeightsError(f"the reader {weights} cannot be loaded ({error}): {remedy}") from None
    return reader.eval()
