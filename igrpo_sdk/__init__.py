"""Reference faces and a prompt in; a video out in which those people appear together and stay themselves.

    from igrpo_sdk import IdentityPipeline
    pipe = IdentityPipeline.from_pretrained("tiny-vace")
    pipe(["ann.png", "bob.png"], "Two people talk.", seed=7).save("out.mp4")

The public names are loaded when first used: `import igrpo_sdk` stays fast and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from igrpo_sdk.errors import (
    Cancelled,
    DependencyError,
    FaceError,
    HubError,
    IgrpoError,
    InputError,
    NumericsError,
    ResourceError,
    WeightsError,
)

if TYPE_CHECKING:
    from igrpo_sdk.adapters.lora import Adapter
    from igrpo_sdk.comparison import Comparison
    from igrpo_sdk.config import GenerationConfig, Geometry, Preset
    from igrpo_sdk.identity.analyzer import Face, FaceAnalyzer
    from igrpo_sdk.identity.measuring import measure
    from igrpo_sdk.identity.people import find_people
    from igrpo_sdk.identity.report import IdentityReport
    from igrpo_sdk.media.video import IdentityVideo
    from igrpo_sdk.pipeline import IdentityPipeline
    from igrpo_sdk.references import Reference
    from igrpo_sdk.refinement import QwenRefiner, Refiner, complete_prompt
    from igrpo_sdk.sampling import Progress

__version__ = "0.1.0"

_LAZY = {
    "Adapter": "igrpo_sdk.adapters.lora",
    "Comparison": "igrpo_sdk.comparison",
    "Face": "igrpo_sdk.identity.analyzer",
    "FaceAnalyzer": "igrpo_sdk.identity.analyzer",
    "GenerationConfig": "igrpo_sdk.config",
    "Geometry": "igrpo_sdk.config",
    "IdentityPipeline": "igrpo_sdk.pipeline",
    "IdentityReport": "igrpo_sdk.identity.report",
    "IdentityVideo": "igrpo_sdk.media.video",
    "Preset": "igrpo_sdk.config",
    "Progress": "igrpo_sdk.sampling",
    "QwenRefiner": "igrpo_sdk.refinement",
    "Reference": "igrpo_sdk.references",
    "Refiner": "igrpo_sdk.refinement",
    "complete_prompt": "igrpo_sdk.refinement",
    "find_people": "igrpo_sdk.identity.people",
    "measure": "igrpo_sdk.identity.measuring",
}

__all__ = [
    "Adapter",
    "Cancelled",
    "Comparison",
    "DependencyError",
    "Face",
    "FaceAnalyzer",
    "FaceError",
    "GenerationConfig",
    "Geometry",
    "HubError",
    "IdentityPipeline",
    "IdentityReport",
    "IdentityVideo",
    "IgrpoError",
    "InputError",
    "NumericsError",
    "Preset",
    "Progress",
    "QwenRefiner",
    "Reference",
    "Refiner",
    "ResourceError",
    "WeightsError",
    "complete_prompt",
    "find_people",
    "measure",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    """Names for completion, the lazy ones included."""
    return sorted({*globals(), *__all__})
