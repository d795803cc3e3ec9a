"""The documentation names nothing that is not there; tests/end_to_end/test_demo.py runs what is marked `run`."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestration.cli.app import main
from tests.documentation import PAGES, ROOT, Block, blocks, blocks_of

BLOCKS = blocks()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}: {block.commands[0][:40]}")
def test_every_command_is_run_or_says_what_it_needs(block: Block) -> None:
    assert re.fullmatch(r"run|needs: .{5,}", block.marker), "put <!-- run --> or <!-- needs: ... --> before the block"


KNOWN = (
    "multitron",
    "dagster",
    "torchrun",
    "export",
    "dagster-celery",
    "dagster-daemon",
    "dagster-webserver",
    "docker",
    "kubectl",
    "cp",
    "sed",
)  # of a cluster's pages


@pytest.mark.parametrize("command", sorted({command for block in BLOCKS for command in block.commands}))
def test_every_command_exists(command: str) -> None:
    words = shlex.split(command.split(" | ")[0])
    program = words[0].removeprefix(".venv/bin/")
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif program == "multitron" and words[1:] != ["--help"]:
        main.commands[words[1]].make_context(words[1], words[2:], resilient_parsing=True)
    elif program == "python" and words[1] == "-m":
        assert importlib.util.find_spec(words[2]) is not None
        options = [word for word in words[3:] if word.startswith("--")]
        assert not [each for each in options if each not in _source(words[2])]
    elif program == "python":
        assert (ROOT / words[1]).is_file()
        assert not [word for word in words[2:] if word.startswith("--") and word not in (ROOT / words[1]).read_text()]
    else:
        assert program in KNOWN, f"{program} is not known to this test: add it"


def _source(module: str) -> str:
    """The text of a module, or of a package's `__main__`, with the options that argparse gives by itself."""
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin)
    return (path.with_name("__main__.py") if path.name == "__init__.py" else path).read_text() + "--help"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles], target


def test_the_reference_is_current(tmp_path: Path) -> None:
    """In a new process: click keeps a help option that other tests of this process have requested."""
    made = tmp_path / "reference.md"
    command = [sys.executable, str(ROOT / "docs" / "make_reference.py"), str(made)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    assert (ROOT / "docs" / "reference.md").read_text() == made.read_text(), "run `make docs`"


def test_what_a_public_host_reads_can_be_read() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert ".ci/run" in steps
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(form.read_text())


def test_the_guard_sees_a_block_without_a_marker(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- run -->\n```sh\nls  # list\n```\n\ntext\n\n```sh\nmake demo\n```\n")
    assert [(block.marker, block.commands) for block in blocks_of(page)] == [("run", ("ls",)), ("", ("make demo",))]
