"""Several videos in one call: two prompts with different people, two seeds each, all computed together.

python examples/batch.py [--folder FOLDER]
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import auto_cli

from igrpo_sdk import IdentityPipeline, Reference

FACES = Path(__file__).parent / "faces"


def main(folder: str = ".") -> None:
    """Write one video and one contact sheet for each pair and seed.

    Args:
        folder: where they go; made if it is not there.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    ann, bob = (Reference.load(FACES / name) for name in ("ann.png", "bob.png"))
    pipe = IdentityPipeline.from_pretrained("tiny-vace")
    videos = pipe(
        [[ann, bob], [ann]],
        ["Two people talk in front of a green wall.", "One person smiles in front of a window."],
        seed=7,
        num_videos=2,
        steps=6,  # fewer than usual: drafts to choose a seed from
    )
    for pair, takes in enumerate(videos):
        for take, video in enumerate(takes):
            path = video.save(target / f"{pair}_{take}.mp4", overwrite=True)
            video.contact_sheet().save(path.with_suffix(".png"))
            print(path, "seed", video.settings["seed"])


if __name__ == "__main__":
    auto_cli(main)
