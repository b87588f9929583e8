"""Without a framework its file says what to install; without the files nothing of any is loaded."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

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
