"""The documentation does what it says: its blocks run, its commands parse, its map is complete, its links hold.

A comment above a block says what becomes of it: `<!-- not run: reason -->` (commands are still checked against the
command line), `<!-- file: name.py -->` (written beside the blocks that follow), `<!-- medium -->` (takes longer).
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.conftest import MODELS, check, finished_study

from fettle import registry
from fettle.cli import options
from fettle.cli.main import cli
from fettle.problems.serve.cost import Prices
from fettle.problems.serve.problem import make
from fettle.problems.serve.targets.command import load_space

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SOURCES = sorted(p for p in (ROOT / "src" / "fettle").rglob("*.py") if p.name != "__init__.py")
_NOTE = r"<!--[^\n]*-->"
_BLOCK = re.compile(
    rf"(?P<notes>(?:{_NOTE}\n)*)```(?P<kind>\w*)\n(?P<text>.*?)^```(?P<after>\n{_NOTE})?", re.MULTILINE | re.DOTALL
)
_WITHOUT_MEASURING = """
import inspect, fettle
from fettle import api
from fettle.problems.serve.problem import make

signature = inspect.signature(api.serve)

def serve(*words, **options):
    given = signature.bind(*words, **options).arguments
    api.seconds(given["budget"])
    make(given["model"], slo=given["slo"], objective=given["objective"], **given.get("options", {}))
    return api.open_study("model", given["storage"])

fettle.serve = serve
"""
LINES = {"climb.py": 100, "plain.py": 150}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    text: str
    notes: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str:
        found = re.search(r"<!-- file: (\S+) -->", self.notes)
        return found[1] if found else ""

    @property
    def runs(self) -> bool:
        return "not run:" not in self.notes and not self.file


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            notes = match["notes"] + (match["after"] or "")
            found.append(Block(page, text[: match.start("text")].count("\n"), match["kind"], match["text"], notes))
    return found


def of(*kinds: str) -> list[Any]:
    medium = pytest.mark.medium
    return [
        pytest.param(b, id=str(b), marks=[medium] if "<!-- medium" in b.notes else [])
        for b in blocks()
        if b.kind in kinds
    ]


def beside(page: Path, folder: Path) -> None:
    """What the blocks of a page find in their folder: its own files, a finished study, and a model."""
    for block in blocks():
        if block.page == page and block.file:
            (folder / block.file).write_text(block.text)
    (folder / "model.onnx").write_bytes((MODELS / "digits-fp32.onnx").read_bytes())
    (folder / "model-int8.onnx").write_bytes((MODELS / "digits-int8.onnx").read_bytes())
    (folder / "samples.npz").write_bytes((MODELS / "digits-samples.npz").read_bytes())


def environment(folder: Path) -> dict[str, str]:
    shim = folder / "bin" / "fettle"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fettle.cli.main "$@"\n')
    shim.chmod(0o755)
    path = os.pathsep.join([str(folder), *(p for p in sys.path if p)])
    return {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": path}


def run(block: Block, folder: Path, *argv: str) -> None:
    done = subprocess.run(
        argv, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{block}: {done.stdout}\n{done.stderr}"


def commands(block: Block) -> list[list[str]]:
    joined = block.text.replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [shlex.split(line, comments=True) for line in lines]


def would_serve(given: dict[str, Any]) -> None:
    """All that `fettle serve` checks before its first server starts."""
    del given["as_json"]
    made = options.serve_arguments(given.pop("model"), given)
    elsewhere = ("budget", "trials", "stop_regret", "storage", "name", "algorithm")
    make(**{key: value for key, value in made.items() if key not in elsewhere})


def test_there_are_pages() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "architecture.md", "serve.md", "cli.md"} <= names
    assert len(of("python")) > 4


@pytest.mark.parametrize("block", of("python"))
def test_python_blocks(block: Block, tmp_path: Path) -> None:
    if block.file:
        compile(block.text, block.file, "exec")
        assert block.text.count("\n") < LINES[block.file]
        return
    if not block.runs:
        finished_study(tmp_path / "fettle.db", "model")
        (tmp_path / "block.py").write_text(_WITHOUT_MEASURING + block.text)
        beside(block.page, tmp_path)
        run(block, tmp_path, sys.executable, "-W", "error", "block.py")
        return
    beside(block.page, tmp_path)
    run(block, tmp_path, sys.executable, "-W", "error", "-c", block.text)


@pytest.mark.parametrize("block", of("bash", "sh"))
def test_commands(block: Block, tmp_path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for program, *words in commands(block):
        if program == "fettle" and words[0] not in ("--version", "--help"):
            with cli.commands[words[0]].make_context(words[0], words[1:]) as context:  # raises on what it does not know
                if words[0] == "serve" and "command" not in words:
                    beside(block.page, tmp_path)
                    would_serve(dict(context.params))
        elif program == "make":
            assert set(words) <= targets, words
        elif program == "python" and not words[0].startswith("-"):
            assert (ROOT / words[0]).exists(), words
    if block.runs:
        beside(block.page, tmp_path)
        finished_study(tmp_path / "fettle.db", "model")
        run(block, tmp_path, "bash", "-euc", block.text)


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_blocks(block: Block, tmp_path: Path) -> None:
    """Experiments, search spaces and price tables are what their readers take."""
    (tmp_path / "block.yaml").write_text(block.text)
    loaded = yaml.safe_load(block.text)
    if "problem" in loaded:
        check("experiment", loaded)
    elif "space" in loaded:
        load_space(tmp_path / "block.yaml")
    else:
        Prices.load(tmp_path / "block.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_fences(page: Path) -> None:
    text = page.read_text()
    assert text.count("\n```") % 2 == 0
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for code in re.findall(r"`((?:src|tests|docs|bench|examples)/[\w./-]+\.\w+)`", text):
        known = {f"src/fettle/algorithms/{name}" for name in LINES}
        known |= {f"src/fettle/problems/serve/targets/{name}" for name in LINES}
        assert code in known or (ROOT / code).exists(), code


def test_the_command_line_is_documented() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_cli.py"))["page"]()
    assert (ROOT / "docs" / "cli.md").read_text() == made, "run: python docs/make_cli.py"
    for name, command in cli.commands.items():
        assert f"## fettle {name}\n" in made
        assert all(option in made for parameter in command.params for option in parameter.opts if option[0] == "-")


def test_the_map_names_every_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert page == runpy.run_path(str(ROOT / "docs" / "make_map.py"))["page"](), "run: python docs/make_map.py"
    lacking = [str(p.relative_to(ROOT)) for p in SOURCES if f"{p.name}`" not in page]
    assert not lacking, f"docs/make_map.py knows no folder of {lacking}"


def test_what_is_documented_can_be_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(ROOT / "CONTRIBUTING.md", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.BUILTIN["algorithms"], "climb", "climb:Climb")  # type: ignore[arg-type]
    monkeypatch.setitem(registry.BUILTIN["targets"], "plain", "plain:Plain")  # type: ignore[arg-type]
    assert registry.describe("algorithms", registry.settings("algorithms", "climb")) == {"name": "climb", "initial": 5}
    assert make(tmp_path / "model.onnx", slo="p99=50ms", target="plain").target.name == "plain"
