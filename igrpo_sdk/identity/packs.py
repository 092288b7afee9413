"""Packs of face models: where they are, what `pack.json` says of them, and opening them with insightface.

A pack is "tiny", shipped with this package and trained on its procedural world; a folder with a pack's
files; or the name of one of insightface's own, whose weights are for non-commercial research only. A folder
may hold a `pack.json`; each of its entries may be left out:

    name                    what reports call the pack; by default the folder's name
    input_size              [height, width] in pixels that the detector sees, multiples of 32; by default
                            insightface's two, 128x128 and 640x640, whose finds are put together
    mean                    [D], taken from every embedding before it is scaled to length 1; embeddings that
                            are not centred are similar to everybody's
    same_person_threshold   similarity from which two faces are taken for one person's, in (-1, 1)

insightface fails with bare assertions and with attributes that are missing; here that is a typed error.
"""

from __future__ import annotations

import math
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.config import ASSETS
from igrpo_sdk.errors import DependencyError, HubError, InputError, ResourceError, WeightsError
from igrpo_sdk.reading import read_json, shortened

INSIGHTFACE_PACKS = ("antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")
SAME_PERSON = 0.4
"""`same_person_threshold` of packs that do not say: a usual choice for ArcFace on photographs."""
TINY = ASSETS / "tiny-faces"
"""The shipped pack."""

_KNOWN = {"tiny": "rendered people only"}
"""What a pack knows, by its name in reports, where that is not photographs."""
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INSIGHTFACE_ROOT = "~/.insightface"
_REMEDY = "pip install 'igrpo-sdk[faces]'"
_NEEDS = "a pack is the ONNX files of a detector in SCRFD's layout and of a recogniser in ArcFace's"
_licences_told: set[str] = set()


@dataclass(frozen=True)
class Settings:
    """What `pack.json` says, see the head of this module. `input_size`: height and width, or None."""

    name: str
    input_size: tuple[int, int] | None = None
    mean: NDArray[np.float32] | None = None
    same_person: float = SAME_PERSON


@dataclass(frozen=True)
class Pack:
    """An open pack: insightface's `SCRFD` and `ArcFaceONNX`, prepared, and the settings.

    `mark`: a word that changes with the pack's files.
    """

    detector: Any
    recogniser: Any
    settings: Settings
    mark: str


def name_pack(name: str) -> str:
    """A pack's name, with what it knows where that is little: for every place that shows its numbers."""
    return f"pack {name}" + (f", which knows {_KNOWN[name]}" if name in _KNOWN else "")


def open_pack(pack: str | Path, device: str, least_score: float, download: bool, threads: int = 0) -> Pack:
    """Open a pack with insightface; arguments and errors are those of `FaceAnalyzer.load`."""
    folder = _locate(pack)
    _require_provider(device)
    if not folder.is_dir():
        _fetch(str(pack), folder, download)
    settings = read_settings(folder)
    models = _open(folder, device, settings.input_size, least_score, threads)
    detector: Any = models.get("detection")
    recogniser: Any = models.get("recognition")
    if recogniser is None:
        raise _unfit(folder, "no file is a recogniser: one input (N, 3, 112, 112), one output (N, D)")
    if not getattr(detector, "use_kps", False):
        raise _unfit(folder, "the detector finds no points: it needs 9 outputs (or 15)")
    side = recogniser.input_size[0]
    if side % 112 and side % 128:
        raise _unfit(folder, f"the recogniser's input is {side} pixels wide, no multiple of 112 or 128")
    size = recogniser.output_shape[-1]
    if settings.mean is not None and isinstance(size, int) and len(settings.mean) != size:
        raise WeightsError(
            f"pack {folder}: mean in pack.json has {len(settings.mean)} numbers for embeddings of {size}"
        )
    for model in (detector, recogniser):
        if _PROVIDERS[device] not in model.session.get_providers():
            raise ResourceError(
                f"device {device!r}: onnxruntime could not start {_PROVIDERS[device]} and would compute on "
                "the CPU; check the driver and the CUDA libraries, or use 'cpu'"
            )
    return Pack(detector, recogniser, settings, _mark(folder))


def read_settings(folder: Path) -> Settings:
    """The settings of the pack in a folder. Raises WeightsError if its `pack.json` is damaged."""
    file = folder / "pack.json"
    if not file.is_file():
        return Settings(folder.name)
    try:
        given = read_json(file, "pack")
        size, mean = given.get("input_size"), given.get("mean")
        settings = Settings(
            str(given.get("name", folder.name)),
            None if size is None else (int(size[0]), int(size[1])),
            None if mean is None else np.array(mean, np.float32),
            float(given.get("same_person_threshold", SAME_PERSON)),
        )
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"{file} cannot be read ({error}): get the pack again") from None
    size, mean = settings.input_size, settings.mean
    if size is not None and (min(size) < 32 or size[0] % 32 or size[1] % 32):
        raise WeightsError(f"{file}: input_size {list(size)} must be two multiples of 32")
    if mean is not None and (mean.ndim != 1 or not np.isfinite(mean).all()):
        raise WeightsError(f"{file}: mean must be one list of finite numbers")
    if not (math.isfinite(settings.same_person) and -1 < settings.same_person < 1):
        raise WeightsError(f"{file}: same_person_threshold {settings.same_person} must be in (-1, 1)")
    return settings


def _mark(folder: Path) -> str:
    """A checksum over the files of a pack."""
    mark = 0
    for file in sorted([*folder.glob("*.onnx"), *folder.glob("pack.json")]):
        mark = zlib.crc32(file.read_bytes(), mark)
    return f"{mark:08x}"


def _locate(pack: str | Path) -> Path:
    """The folder that a pack is in, or will be in once it is fetched."""
    if pack == "tiny":
        if not TINY.is_dir():
            raise WeightsError(f"pack 'tiny': {TINY} is missing; install the package again")
        return TINY
    if Path(pack).is_dir():
        return Path(pack)
    if pack in INSIGHTFACE_PACKS:
        if pack not in _licences_told:
            _licences_told.add(str(pack))
            told = f"the weights of insightface's pack {pack} are for non-commercial research only"
            warnings.warn(told, stacklevel=4)
        return Path(_INSIGHTFACE_ROOT).expanduser() / "models" / pack
    known = ", ".join(INSIGHTFACE_PACKS)
    raise InputError(
        f"pack {shortened(str(pack))} is no folder: give 'tiny', a folder with a pack's files, or {known}"
    )


def _fetch(pack: str, folder: Path, download: bool) -> None:
    """Let insightface fetch one of its packs, if that is allowed."""
    if not download:
        raise WeightsError(
            f"pack {pack!r} is not in {folder}: FaceAnalyzer.load({pack!r}, download=True) fetches it once "
            f"(up to 400 MB, from GitHub); or unpack {pack}.zip there"
        )
    storage = _insightface("utils.storage")
    try:
        storage.ensure_available("models", pack, root=_INSIGHTFACE_ROOT)
    except Exception as error:  # of requests when the network is away, RuntimeError, of zipfile when cut off
        raise HubError(
            f"pack {pack!r} cannot be downloaded ({error}): connect and try again, or unpack {pack}.zip "
            f"into {folder}"
        ) from error


def _require_provider(device: str) -> None:
    """Refuse a device that onnxruntime lacks: it would use the CPU and only warn."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(f"onnxruntime cannot be imported ({error}): {_REMEDY}") from None
    onnxruntime.disable_telemetry_events()
    if device not in _PROVIDERS:
        raise InputError(f"device {shortened(device)}: use 'cpu' or 'cuda'")
    if _PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise ResourceError(
            f"device {device!r}: this onnxruntime lacks {_PROVIDERS[device]}; "
            "install onnxruntime-gpu, or use 'cpu'"
        )


def _insightface(module: str) -> Any:
    """A module of insightface."""
    from importlib import import_module

    try:
        return import_module(f"insightface.{module}")
    except ImportError as error:
        raise DependencyError(f"insightface cannot be imported ({error}): {_REMEDY}") from None


def _open(
    folder: Path, device: str, input_size: tuple[int, int] | None, least_score: float, threads: int
) -> dict[str, Any]:
    """insightface's models of a folder, by task, ready to run."""
    analysis = _insightface("app").FaceAnalysis
    import onnxruntime

    # Threads that wait by spinning take the cores that the pack's other network needs: on two cores a clip
    # took 2.7 times as long.
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads
    try:
        app = analysis(
            str(folder),
            allowed_modules=["detection", "recognition"],
            providers=[_PROVIDERS[device]],
            sess_options=options,
        )
        size = None if input_size is None else input_size[::-1]
        app.prepare(ctx_id=0, det_thresh=least_score, det_size=size)
    except Exception as error:  # bare assertions of insightface, types of their own of onnx and onnxruntime
        reason = f"{type(error).__name__} {error}".strip()
        raise _unfit(folder, f"insightface cannot load it ({reason})") from error
    return dict(app.models)


def _unfit(folder: Path, reason: str) -> WeightsError:
    """The error for a folder that is no pack, with what is in it."""
    files = sorted(file.name for file in folder.glob("*.onnx"))
    inner = sorted({file.parent.name for file in folder.glob("*/*.onnx")})
    if files:
        there = f"it holds {', '.join(files)}"
    elif inner:
        there = f"its files are one folder too deep: move what is in {', '.join(inner)} up"
    else:
        there = "it holds no .onnx file: unpack the pack there again"
    return WeightsError(f"pack {folder}: {reason}. {there[0].upper()}{there[1:]}; {_NEEDS}")
