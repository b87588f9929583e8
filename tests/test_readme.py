"""The README's examples run as they stand; `test_workflows.py` has its commands."""

import re
from pathlib import Path

import pytest
import torch

import pages

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(pages.blocks(README)) == 6
    assert not any(block.mark for block in pages.blocks(README))
    namespace = pages.run(README, "README.md")
    assert (tmp_path / "mine.html").exists()
    assert (tmp_path / "runs/mine/series.jsonl").read_text().count("\n") == 3
    assert (tmp_path / "statistics.safetensors").exists()
    assert (tmp_path / "prototypes.safetensors").exists()
    assert namespace["p"].certificate.optimal is True
    assert namespace["model"][2] is namespace["head"]
    assert isinstance(namespace["plain"], torch.nn.Linear)


def test_first_screen_has_exactly_two_commands() -> None:
    commands = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
    assert len(commands) == 2
    assert "tightframe demo" in commands[0]
    assert "pytest" in commands[1]
    assert all(command.count("\n") == 1 for command in commands)
