"""What a name stands for: a preset, a path on this machine, or a repository on the Hub; and getting the last.

Only this module talks to huggingface_hub. A path is looked for here before the Hub is asked, and nothing is
fetched but the files that were asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from igrpo_sdk.config import Preset, preset_names
from igrpo_sdk.errors import HubError, InputError
from igrpo_sdk.reading import shortened

__all__ = [
    "Repository",
    "fetch",
    "fetch_pipeline",
    "file_names",
    "hub_error",
    "locate",
    "locate_model",
    "split_file",
]

_NAME = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub, "owner/name", at a commit, a tag or a branch; None is its main branch."""

    id: str
    revision: str | None = None

    @classmethod
    def of(cls, text: str) -> Repository | None:
        """What "owner/name" or "owner/name@revision" stands for; None for any other text."""
        match = _NAME.fullmatch(text)
        return cls(match["id"], match["revision"]) if match else None

    def __str__(self) -> str:
        """The text that `of` reads."""
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


def locate(name: str | os.PathLike[str], revision: str | None = None) -> Path | Repository | None:
    """What a name stands for; None for nothing, and the caller says what it would have taken.

    A file or a directory that is there comes first, then "owner/name" of a repository, also with its revision
    behind: "owner/name@revision". A `Path` is never a repository. `revision`: a commit, a tag or a branch;
    raises InputError for one of what is no repository, and for two that differ.
    """
    if isinstance(name, str | os.PathLike) and os.path.exists(name):
        if revision is not None:
            raise _no_revision(name, revision, "is on this machine and has none")
        return Path(name)
    found = Repository.of(name) if isinstance(name, str) else None
    if revision is None or found is None:
        return found
    if found.revision not in (None, revision):
        raise _no_revision(name, revision, f"names {found.revision!r}")
    return Repository(found.id, revision)


def split_file(text: str, revision: str | None = None) -> tuple[Repository, str] | None:
    """(repository, file) of "owner/name/path/of/file.suffix", also with a revision behind; else None.

    Raises InputError for two revisions that differ.
    """
    name, _, behind = text.partition("@")
    parts = name.split("/")
    repository = Repository.of("/".join(parts[:2]) + (f"@{behind}" if behind else ""))
    if repository is None or len(parts) < 3 or "" in parts or "." not in parts[-1] or {".", ".."} & {*parts}:
        return None
    if revision is not None and repository.revision not in (None, revision):
        raise _no_revision(text, revision, f"names {shortened(repository.revision)}")
    return Repository(repository.id, revision or repository.revision), "/".join(parts[2:])


def locate_model(
    name: str | os.PathLike[str], revision: str | None = None
) -> Preset | Path | Repository | None:
    """`locate` where a string may name a preset too, which comes first; `revision` then replaces its own."""
    if not isinstance(name, str) or name not in preset_names():
        return locate(name, revision)
    preset = Preset.load(name)
    if revision is None:
        return preset
    if preset.repo_id is None:
        raise _no_revision(name, revision, "is on this machine and has none")
    return replace(preset, revision=revision)


def _no_revision(name: object, revision: str, why: str) -> InputError:
    return InputError(f"revision: {shortened(revision)}, but {shortened(str(name))} {why}; leave it out")


def fetch(repository: Repository, files: Sequence[str], what: str) -> Path:
    """The local folder of a repository's files, downloaded if they are not there yet, and nothing else of it.

    Args:
        repository: where to look.
        files: names, or patterns such as *.safetensors. One that the repository lacks is simply not there.
        what: what messages call the thing, such as "adapter".

    Raises HubError when the repository cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repository.id, revision=repository.revision, allow_patterns=list(files))
        )
    except Exception as error:  # of the hub's client, of its HTTP library, of the disk
        raise hub_error(repository, error, what) from error


def file_names(repository: Repository, what: str) -> list[str]:
    """The names of a repository's files; without a network, of those that were downloaded before.

    Raises HubError when the repository cannot be had.
    """
    from huggingface_hub import HfApi, snapshot_download

    name, revision = repository.id, repository.revision
    try:
        return list(HfApi().list_repo_files(name, revision=revision))
    except Exception as error:  # of the hub's client, of its HTTP library
        try:
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        except Exception:
            raise hub_error(repository, error, what) from error
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def fetch_pipeline(repository: Repository) -> Path:
    """The local folder of a diffusers pipeline; only safetensors are downloaded, and no second variant.

    Raises what diffusers raises: who loads the model tells what is wrong.
    """
    from diffusers import DiffusionPipeline

    return Path(DiffusionPipeline.download(repository.id, revision=repository.revision, use_safetensors=True))


def hub_error(repository: Repository | str, error: Exception, what: str) -> HubError:
    """What an exception of the Hub's client means; `what` is what the message calls the thing."""
    reason = " ".join(str(error).split())[:300]
    return HubError(f"{what} {repository}: {reason}. Check the name, the network, or log in")
