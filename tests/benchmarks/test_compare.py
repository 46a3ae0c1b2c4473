"""The comparison of revisions: what is exported, built and timed, and what is said of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks._results import ROOT
from benchmarks.compare import __main__ as command
from benchmarks.compare.build import key_of, provide
from benchmarks.compare.cases import all_cases, chosen
from benchmarks.compare.revisions import export, resolve
from benchmarks.compare.session import AGAIN, BASE, HEAD, Found, Process, compare, take_turns
from benchmarks.compare.summary import disturbed, record_of, render
from benchmarks.compare.worker import Worker
from hybridkern._extension import extension

SMALL = "gaussian_log_prob (64,32), parameters (1,32), forward+backward"


def git(root: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", str(root), *settings, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit, tagged; then a file changed, one new, one deleted and one ignored."""
    root = tmp_path / "repository"
    (root / "a").mkdir(parents=True)
    git(root, "init")
    for name, text in {"a/kept": "1", "changed": "1", "deleted": "1", ".gitignore": "ignored\n"}.items():
        (root / name).write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-m", "first")
    git(root, "tag", "v1")
    (root / "changed").write_text("2")
    (root / "new").write_text("2")
    (root / "ignored").write_text("2")
    (root / "deleted").unlink()
    return root


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_revisions_are_those_of_git(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    tag, short, tree = (resolve(repository, name, "--base") for name in ("v1", commit[:8], None))
    assert {tag.commit, short.commit, tree.commit} == {commit}
    assert str(tag) == f"v1 ({commit[:10]})" and str(short) == commit[:8]
    assert str(tree) == f"working tree ({commit[:10]} with 3 uncommitted changes)"
    git(repository, "stash", "--include-untracked")
    assert str(resolve(repository, None, "--head")) == f"working tree ({commit[:10]})"


@pytest.mark.parametrize("name", ["nowhere", "--all", "v1:changed", ""])
def test_unknown_revision(repository: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"--base: got '{name}', expected a commit, branch or tag"):
        resolve(repository, name, "--base")


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ValueError, match=r"--base: .* is no git repository"):
        resolve(tmp_path, "main", "--base")


def test_export(repository: Path, tmp_path: Path) -> None:
    export(repository, resolve(repository, "v1", "--base"), tmp_path / "x" / "base")
    export(repository, resolve(repository, None, "--head"), tmp_path / "x" / "head")
    before = {"a/kept": "1", "changed": "1", "deleted": "1", ".gitignore": "ignored\n"}
    after = {"a/kept": "1", "changed": "2", "new": "2", ".gitignore": "ignored\n"}
    assert (files(tmp_path / "x" / "base"), files(tmp_path / "x" / "head")) == (before, after)
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def sources(folder: Path, setup: str, code: str = "1") -> Path:
    for name, text in {"setup.py": setup, "csrc/a.cpp": code, "hybridkern/x.py": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_same_code_is_built_once(tmp_path: Path) -> None:
    built = "[open(f'hybridkern/{name}.x.so', 'w').write('built') for name in ('_C', '_nodes')]"
    setup = f"{built}; open('{tmp_path}/count', 'a').write('.')"
    first, same = sources(tmp_path / "1", setup), sources(tmp_path / "2", setup)
    other = sources(tmp_path / "3", setup, code="2")
    (same / "hybridkern" / "x.py").write_text("Python is not compiled")
    assert key_of(first) == key_of(same) != key_of(other)
    for folder in (first, same, other):
        provide(folder, tmp_path / "cache")
        for name in ("_C", "_nodes"):
            assert (folder / "hybridkern" / f"{name}.x.so").read_text() == "built"
    assert (tmp_path / "count").read_text() == ".."
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"could not be built:(.|\n)*no such compiler"):
        provide(sources(tmp_path / "1", "raise SystemExit('no such compiler')"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


class Answers:
    """Stands in for a process: says what it is told to, and remembers what it was asked."""

    def __init__(self, log: list[str], name: str, seconds: float, results: list[Any], error: str = "") -> None:
        self.log, self.name, self.seconds, self.results, self.error = log, name, seconds, results, error

    def ask(self, what: str, argument: object) -> dict[str, Any]:
        if self.error:
            return {"error": self.error}
        if what == "time":
            self.log.append(self.name)
            assert argument == 10  # 20 ms by the head's 2 ms
        else:
            self.log.append("build")
        return {"results": self.results, "seconds": self.seconds}


def outcome(base: list[Any], error: str = "") -> tuple[Found, list[str]]:
    log: list[str] = []
    processes = {
        BASE: Answers(log, BASE, 3e-3, base, error),
        HEAD: Answers(log, HEAD, 2e-3, [[[2], 5.0]]),
        AGAIN: Answers(log, AGAIN, 2e-3, [[[2], 5.0]]),
    }
    found = Found()
    take_turns(processes, "case", 6, found)  # type: ignore[arg-type]
    return found, log


def test_processes_take_turns() -> None:
    found, log = outcome([[[2], 5.01]])
    assert (found.ratio(), found.ratio(AGAIN), found.problem) == (1.5, 1.0, "")
    assert str(found) == "base / head 1.50, head / head 1.00"
    assert found.ratio_quartiles() == (1.5, 1.5) and all(len(times) == 6 for times in found.times.values())
    for built in range(0, 24, 12):  # anew after three rounds
        assert log[built : built + 3] == ["build"] * 3
        rounds = [sorted(log[i : i + 3]) for i in range(built + 3, built + 12, 3)]
        assert rounds == [sorted([BASE, HEAD, AGAIN])] * 3


def test_a_ratio_is_of_sides_of_the_same_round() -> None:
    times = {BASE: [1.0, 2.0, 30.0, 4.0], HEAD: [1.0, 2.0, 10.0, 4.0], AGAIN: [2.0, 4.0, 20.0, 8.0]}
    assert Found(times).ratio() == 1.0 and Found(times).ratio(AGAIN) == 2.0
    assert Found(times).ratio_quartiles() == (1.0, 1.5)


def test_a_case_built_anew_lies_elsewhere() -> None:
    worker = Worker()
    places = set()
    for _ in range(4):
        worker.build(SMALL)
        places.add(tuple(gap.data_ptr() for gap in worker._apart))
    assert len(places) == 4


@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        ([[[2], 5.1]], "", "base and head give different results"),
        ([[[2], float("nan")]], "", "base and head give different results"),
        ([[[3], 5.0]], "", "different shapes"),
        ([], "AttributeError: no such operator", "base cannot run it: AttributeError: no such operator"),
    ],
)
def test_what_cannot_be_compared_is_not_timed(base: list[Any], error: str, message: str) -> None:
    found, log = outcome(base, error)
    assert message in found.problem and set(log) <= {"build"} and not found.times[HEAD]


def test_summary() -> None:
    conditions = {"base": "v1 (abc)", "head": "working tree", "cpu": "a CPU", "threads": "2", "torch": "2"}
    conditions |= {"instruction_set": "avx2", "date": "today"}
    good = Found({BASE: [3e-3, 4e-3, 5e-3], HEAD: [2e-3] * 3, AGAIN: [2.02e-3] * 3})
    unsure = Found({BASE: [1e-5] * 3, HEAD: [1e-5] * 3, AGAIN: [1.2e-5] * 3})
    cases = {"a": good, "b": unsure, "c": Found(problem="base cannot run it: why")}
    records = [record_of(case, found, conditions) for case, found in cases.items()]
    text = render(records)
    assert "| a | 4 ms | 2 ms | 2.00 | 1.75 to 2.25 | 1.01 |" in text
    assert "| c |  |  | not comparable |  |  |" in text and "c: base cannot run it: why" in text
    assert "base: v1 (abc); head: working tree." in text and "Medians of 3 rounds" in text
    assert disturbed(records) == ["b"] and "DISTURBED, not to be used: b." in text


def test_cases_are_chosen_by_words() -> None:
    assert set(all_cases()) == set(chosen("")) and SMALL in chosen("")
    assert chosen("GAUSSIAN small") == [] and chosen("(64,32) gaussian") == [SMALL]
    assert {"Glow step, float32"} <= set(chosen("step"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").symlink_to(ROOT)
    return tmp_path / "source"


if extension.module is not None:

    def test_two_processes_of_this_checkout(source: Path) -> None:
        found, conditions = compare({BASE: source, HEAD: source}, [SMALL], starts=1, rounds=2)
        assert found[SMALL].problem == "" and all(len(times) == 2 for times in found[SMALL].times.values())
        assert min(found[SMALL].times[BASE]) > 0 and conditions["threads"] == "2"


def test_a_process_without_the_extension_is_an_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDKERN_NO_EXT", "1")
    with pytest.raises(RuntimeError, match="base: runs without the extension: switched off by HYBRIDKERN_NO_EXT"):
        Process(BASE, source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "no-such-revision"], "--base: got 'no-such-revision', expected a commit"),
        (["--base", "HEAD", "--head", "nowhere"], "--head: got 'nowhere'"),
        (["--base", "HEAD", "-k", "colour"], "-k: got 'colour', which no case has"),
        (["--base", "HEAD", "--rounds", "4"], "rounds: got 3 x 4, expected at least 15"),
        ([], "--base"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
