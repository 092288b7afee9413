"""Two faces and a prompt in, a video out.

python examples/generate.py [--output OUTPUT]
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import auto_cli

from igrpo_sdk import IdentityPipeline

FACES = Path(__file__).parent / "faces"


def main(output: str = "out.mp4") -> None:
    """Make the video of the README.

    Args:
        output: the file to write; one of that name is replaced.
    """
    pipe = IdentityPipeline.from_pretrained("tiny-vace")
    video = pipe(
        [FACES / "ann.png", FACES / "bob.png"],
        "Two people talk and laugh in front of a blue wall; the left one nods.",
        seed=7,
    )
    print(video.save(output, overwrite=True), video.settings)


if __name__ == "__main__":
    auto_cli(main)
