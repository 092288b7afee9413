"""A video as one picture: the references on the left, frames from beginning to end on the right.

python examples/contact_sheet.py [--video VIDEO] [--output OUTPUT]

The picture of the README is that of `make generate`, with the weights as they are shipped:

    make generate
    python examples/contact_sheet.py --video out.mp4 --output docs/pictures/generate.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jsonargparse import auto_cli
from PIL import Image

from igrpo_sdk import IdentityVideo, Reference

FACES = Path(__file__).parent / "faces"
COLUMNS, ROWS, GAP, COLOURS = 4, 2, 6, 160


def main(video: str = "out.mp4", output: str = "out.png") -> None:
    """Draw a video of ann and bob of examples/faces.

    Args:
        video: a .mp4, .webm or .gif file.
        output: the picture to write, .png; one of that name is replaced.
    """
    frames = IdentityVideo.load(video).frames
    height, width = frames.shape[1:3]
    shown = frames[np.linspace(0, len(frames) - 1, COLUMNS * ROWS).round().astype(int)]
    size = (height + 2 * GAP + COLUMNS * (width + GAP), ROWS * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for row, name in enumerate(("ann.png", "bob.png")):
        face = Image.fromarray(Reference.load(FACES / name).image).resize((height, height))
        sheet.paste(face, (0, row * (height + GAP)))
    for place, frame in enumerate(shown):
        row, column = divmod(place, COLUMNS)
        left = height + 3 * GAP + column * (width + GAP)
        sheet.paste(Image.fromarray(frame), (left, row * (height + GAP)))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(COLOURS).save(output, optimize=True)
    print(output)


if __name__ == "__main__":
    auto_cli(main)
