"""The commands that README and pages print: their options, settings and experiments exist, and take these values."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hybridkern.lab.cli import app
from hybridkern.lab.recipes.recipe import get_recipe
from hybridkern.lab.reproduce.experiment import get_experiment

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:hybridkern|torchrun .* -m hybridkern\.lab\.cli) +(.+?)(?:  +#.*)?$", re.MULTILINE)
FILES = ("data", "test_data", "data_root", "ood")


def commands(page: Path) -> list[str]:
    """What stands behind ``hybridkern`` in the blocks of a page that are no Python."""
    blocks = [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language in ("", "text")]
    return [command for text in blocks for command in COMMAND.findall(re.sub(r"\\\n\s*", "", text))]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [(page.stem, command) for page in PAGES for command in commands(page)]


def understood(command: str) -> str:
    """The name of the command; ValueError where one of its words means nothing."""
    try:
        return _understood(command)
    except Exception as error:  # typer has errors of its own, or click's
        raise ValueError(f"{command}: {error}") from error


def _understood(command: str) -> str:
    group: Any = typer.main.get_command(app)
    words = shlex.split(command)
    context = group.make_context("hybridkern", list(words), resilient_parsing=True)
    name, found, rest = group.resolve_command(context, words)
    given: dict[str, Any] = found.make_context(name, list(rest)).params
    if name == "train":
        config = get_recipe(given["recipe"]).config
        options = {key: value for key, value in given.items() if key in config.names()}
        config.updated(given["recipe"], options | config.parsed(given["recipe"], given["option"] or []))
    elif name == "reproduce":
        experiment = get_experiment(given["name"])
        unknown = [key for key in FILES if given[key] is not None and key not in experiment.sources]
        if unknown or given["variant"] not in (None, *experiment.variants):
            raise ValueError(f"{given['name']}: takes no {unknown or given['variant']}")
    return str(name)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_printed_command_is_understood(page: str, command: str) -> None:
    assert understood(command)


def test_pages_print_commands_of_every_kind() -> None:
    assert {understood(command) for _, command in COMMANDS} >= {"train", "reproduce", "compress", "sample", "recipes"}


WRONG = """\
train digits --flwo nsf
train digits --set depth=3
train mnist --set steps=two
train density --lam 1
reproduce half-moons --ood a.npz
reproduce codec --variant mnst
compress runs/digits
evalute runs/a
"""


@pytest.mark.parametrize("command", WRONG.splitlines())
def test_what_means_nothing_is_found(command: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(command)}: "):
        understood(command)
