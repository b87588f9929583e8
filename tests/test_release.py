"""One version and one date in all files, true classifiers, and a wheel and a source distribution that are complete."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path

import pytest

import release
import tightframe
from release import ROOT, ReleaseError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REPOSITORY = PROJECT["project"]["urls"]["Repository"]

# ---------------------------------------------------------------------- version and date


def test_version_and_date_agree_in_all_files() -> None:
    assert release.version() == tightframe.__version__
    release.released()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that name the version, released on a date."""
    (tmp_path / "src" / "tightframe").mkdir(parents=True)
    (tmp_path / "src" / "tightframe" / "version.py").write_text('"""V."""\n\n__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 (2027-01-31)\n\n* New.\n\n## 1.1.0 (2026-12-01)\n")
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\ndate-released: 2027-01-31\n")
    return tmp_path


def test_a_dated_version_can_be_tagged(copy: Path) -> None:
    assert release.released(copy) == "2027-01-31"
    release.require_tag("v1.2.0", copy)
    with pytest.raises(ReleaseError, match=r"must be v1\.2\.0.*got 1\.2\.0"):
        release.require_tag("1.2.0", copy)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("CHANGELOG.md", "## 1.2.0", "## 1.3.0", r"must begin with '## 1\.2\.0"),
        ("CHANGELOG.md", "(2027-01-31)", "(31 January)", "must be YYYY-MM-DD"),
        ("CITATION.cff", "\nversion: 1.2.0", "\nversion: 1.1.0", r"must have version: 1\.2\.0; got \['1\.1\.0'\]"),
        ("CITATION.cff", "2027-01-31", "2027-01-30", "must have date-released: 2027-01-31"),
        ("CITATION.cff", "date-released: 2027-01-31\n", "", r"must have date-released: 2027-01-31; got \[\]"),
        ("CHANGELOG.md", "(2027-01-31)", "(unreleased)", "must have no date-released before the release"),
        ("src/tightframe/version.py", "1.2.0", "1.2.1", r"must begin with '## 1\.2\.1"),
    ],
)
def test_a_disagreement_is_named(copy: Path, name: str, old: str, new: str, message: str) -> None:
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1))
    with pytest.raises(ReleaseError, match=message):
        release.released(copy)


def test_no_tag_before_the_date(copy: Path) -> None:
    (copy / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 (unreleased)\n")
    (copy / "CITATION.cff").write_text("version: 1.2.0\n")
    assert release.released(copy) is None
    with pytest.raises(ReleaseError, match="write the date there and in"):
        release.require_tag("v1.2.0", copy)


# ---------------------------------------------------------------------- project metadata


def test_classifiers_say_what_the_project_requires() -> None:
    versions = pythons()
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert versions == [f"3.{minor}" for minor in range(int(versions[0][2:]), int(versions[-1][2:]) + 1)]
    assert (ROOT / "src" / "tightframe" / "py.typed").exists()  # Typing :: Typed
    pre_release = release.version().startswith("0.")
    assert ("Development Status :: 5 - Production/Stable" in PROJECT["project"]["classifiers"]) is not pre_release


def pythons() -> list[str]:
    """The Python versions of the classifiers."""
    found = re.findall(r"'Programming Language :: Python :: (3\.\d+)'", str(PROJECT["project"]["classifiers"]))
    return list(found)


def test_one_address_of_the_repository() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    addresses = re.findall(r"https://[^\"'$]+", text)
    assert len(addresses) == 6
    assert all(address == REPOSITORY or address.startswith(f"{REPOSITORY}/") for address in addresses)


# ---------------------------------------------------------------------- wheel and source distribution


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and a source distribution of the working tree."""
    for needed in ("hatchling", "hatch_fancy_pypi_readme"):
        pytest.importorskip(needed, reason=f"{needed} builds the package; it is in the extra 'test'")
    if not (ROOT / ".git").exists():
        pytest.skip("git lists the files that belong in the distributions; this is no checkout")
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def build(source: Path, target: Path) -> tuple[Path, Path]:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(target)], cwd=source, check=True)
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
def test_the_distributions_are_complete(built: tuple[Path, Path]) -> None:
    release.require_complete(*built)
    with zipfile.ZipFile(built[0]) as file:
        names = {Path(name).name for name in file.namelist()}
    data = ("published.csv", "searched.csv", "searched.safetensors", "page.css", "page.js", "py.typed", "LICENSE")
    assert set(data) <= names and not any("test" in name for name in names)


@pytest.mark.slow
def test_what_is_missing_or_surplus_is_named(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = built
    cut, grown = tmp_path / "cut" / wheel.name, tmp_path / "grown" / wheel.name
    cut.parent.mkdir()
    grown.parent.mkdir()
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(cut, "w") as file:
        for name in whole.namelist():
            if not name.endswith("published.csv"):
                file.writestr(name, whole.read(name))
    with pytest.raises(ReleaseError, match=r"\.whl lacks tightframe/codes/published\.csv"):
        release.require_complete(cut, sdist)
    shutil.copy(wheel, grown)
    with zipfile.ZipFile(grown, "a") as file:
        file.writestr("tests/test_release.py", "")
    with pytest.raises(ReleaseError, match=r"\.whl must not contain tests/test_release\.py"):
        release.require_complete(grown, sdist)
    with pytest.raises(ReleaseError, match=r"bin/tightframe .+ failed:(.|\n)*published\.csv"):
        release.run_installed(cut, borrow=packages())


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder(built: tuple[Path, Path]) -> None:
    release.run_installed(built[0], borrow=packages())


def packages() -> Path:
    """The folder of installed packages that has the dependencies."""
    spec = find_spec("torch")
    return Path(sysconfig.get_path("purelib")) if spec is None or spec.origin is None else Path(spec.origin).parents[1]


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again, _ = build(source, tmp_path / "dist")
    assert contents(again) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.mark.slow
def test_links_of_the_description_are_absolute_and_its_code_is_the_readme_s(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as file:
        (name,) = (name for name in file.namelist() if name.endswith("METADATA"))
        metadata = message_from_bytes(file.read(name))
    description = metadata.get_payload(decode=True)
    assert isinstance(description, bytes)
    text, readme = description.decode(), (ROOT / "README.md").read_text(encoding="utf-8")
    assert metadata["Description-Content-Type"] == "text/markdown"
    code = re.compile(r"```.*?```", flags=re.S)
    assert code.findall(text) == code.findall(readme)
    links, originals = (re.findall(r"!?\[[^\]]*\]\(([^)]*)\)", code.sub("", each)) for each in (text, readme))
    assert len(links) == len(originals) > 4
    for link, original in zip(links, originals, strict=True):
        if "://" not in original:
            kind = "raw" if original.endswith((".png", ".svg")) else "blob"
            assert link == f"{REPOSITORY}/{kind}/v{tightframe.__version__}/{original}"
            assert (ROOT / original.partition("#")[0]).is_file()
