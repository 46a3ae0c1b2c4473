"""The two sides of a comparison: a commit, or the working tree as it lies, each as a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

WORKING_TREE = "working tree"


@dataclass(frozen=True)
class Revision:
    """One state of the sources.

    Attributes:
        name: as the user gave it, or ``"working tree"``.
        commit: its hash; of the working tree the commit it stands on.
        changes: of the working tree how many files are not as in that commit; otherwise 0.
    """

    name: str
    commit: str
    changes: int = 0

    def __str__(self) -> str:
        if self.name != WORKING_TREE:
            return self.name if self.commit.startswith(self.name) else f"{self.name} ({self.commit[:10]})"
        dirty = f" with {self.changes} uncommitted change{'s' * (self.changes > 1)}" if self.changes else ""
        return f"{self.name} ({self.commit[:10]}{dirty})"


def resolve(root: Path, name: str | None, argument: str) -> Revision:
    """The revision that git knows by ``name``; the working tree for ``None``.

    Raises:
        ValueError: git knows no such commit, or ``root`` is no repository. ``argument`` is named in the message.
    """
    commit = _git(
        root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{'HEAD' if name is None else name}^{{commit}}"
    )
    if commit is None and _git(root, "rev-parse", "--git-dir") is None:
        raise ValueError(f"{argument}: {root} is no git repository, so there are no revisions to compare")
    if commit is None:
        raise ValueError(f"{argument}: got {name!r}, expected a commit, branch or tag that git knows in {root}")
    if name is not None:
        return Revision(name, commit.strip())
    status = _git(root, "status", "--porcelain", "--untracked-files=all") or ""
    return Revision(WORKING_TREE, commit.strip(), len(status.splitlines()))


def export(root: Path, revision: Revision, folder: Path) -> None:
    """Writes the sources of ``revision`` into ``folder``, which it makes. Neither index nor worktrees change."""
    folder.mkdir(parents=True)
    if revision.name != WORKING_TREE:
        command = ["git", "-C", str(root), "archive", "--format=tar", revision.commit]
        archive = subprocess.run(command, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-xf", "-", "-C", str(folder)], input=archive, check=True)
        return
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or ""
    for name in filter(None, listed.split("\0")):
        source, target = root / name, folder / name
        if source.is_file():  # a deleted file is still listed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, or ``None`` where it fails."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
