"""Without a framework its file says what to install; without the files nothing of any is loaded; each file is thin."""

import ast
import io
import subprocess
import sys
import tokenize
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import tightframe
from tightframe.errors import MissingExtraError

pytestmark = pytest.mark.integration

IMPORTED = {
    "lightning": "lightning.pytorch",
    "transformers": "transformers",
    "torchmetrics": "torchmetrics",
    "tensorboard": "torch.utils.tensorboard",
    "wandb": "wandb",
}


@pytest.mark.parametrize("name", IMPORTED)
def test_the_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"tightframe.integrations.{name}", raising=False)
    monkeypatch.setitem(sys.modules, IMPORTED[name], None)
    with pytest.raises(MissingExtraError, match=rf"{name} is not installed. Run: pip install 'tightframe\[{name}\]'"):
        import_module(f"tightframe.integrations.{name}")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(requirement.startswith(name) for requirement in project["optional-dependencies"][name])


@pytest.mark.parametrize("module", ["tightframe", "tightframe.integrations", "tightframe.integrations.scalars"])
def test_nothing_is_loaded_before_it_is_asked_for(module: str) -> None:
    program = f"import sys, {module}; assert not {set(IMPORTED.values())!r} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", IMPORTED)
def test_an_adapter_has_at_most_a_hundred_lines_of_code(name: str) -> None:
    """Lines with anything on them but docstrings and comments."""
    source = (Path(tightframe.__file__).parent / "integrations" / f"{name}.py").read_text(encoding="utf-8")
    described = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    idle = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [each for each in tokenize.generate_tokens(io.StringIO(source).readline) if each.type not in idle]
    code = {line for each in tokens for line in range(each.start[0], each.end[0] + 1)} - described
    assert 10 < len(code) <= 100
