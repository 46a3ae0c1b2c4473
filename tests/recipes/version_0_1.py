"""Run folders as version 0.1 wrote them: the same files without checksums, and no checkpoint before the last."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from hybridkern._saved.seals import KEY

SEAL = 71  # bytes of a checksum in the comment of an archive


def without_checksums(folder: Path) -> None:
    """Rewrites a run folder into the form of version 0.1."""
    for path in folder.glob("*.json"):
        values = json.loads(path.read_text())
        del values[KEY]
        if path.name == "config.json":
            values["data"]["levels"] = values["data"].pop("grey_levels")
        path.write_text(json.dumps(values, indent=2) + "\n")
    for path in folder.glob("*.safetensors"):
        save_file(load_file(path), path)
    for path in (folder / "checkpoints").glob("*.ckpt"):
        if "previous" in path.name:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: -SEAL - 2] + b"\0\0")
