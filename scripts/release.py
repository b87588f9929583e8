"""What holds before a release: one version and one date, complete files, a wheel that runs on its own.

python scripts/release.py tag v0.1.0     # the tag is the version, and the changelog and the citation have its date
python scripts/release.py files dist     # the wheel and the source distribution are complete; the wheel runs
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNRELEASED = "unreleased"
COMMANDS = (
    ("tightframe", "--help"),
    ("tightframe", "codes"),
    ("tightframe", "prototypes", "-k", "12", "-d", "3"),
    ("python", "-m", "tightframe", "metrics"),
    ("python", "-c", "import torch, tightframe; assert '<style' in tightframe.certify(torch.eye(4)).to_html()"),
)
"""Commands of an installed package; together they read all its data files."""


class ReleaseError(Exception):
    """What does not hold, and where."""


# ---------------------------------------------------------------------- version and date


def version(root: Path = ROOT) -> str:
    """The version, from its only place."""
    return _only(r'^__version__ = "(.+)"$', root / "src" / "tightframe" / "version.py")


def released(root: Path = ROOT) -> str | None:
    """The date of this version, or None before its release, from the first heading of the changelog.

    Raises: ReleaseError unless the changelog begins with this version and the citation has the same version and date.
    """
    heading = re.search(r"^## (\S+) \((.+)\)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    if heading is None or heading[1] != version(root):
        raise ReleaseError(f"CHANGELOG.md must begin with '## {version(root)} (DATE)', or ({UNRELEASED}).")
    date = None if heading[2] == UNRELEASED else heading[2]
    if date is not None and not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise ReleaseError(f"the date in CHANGELOG.md must be YYYY-MM-DD or {UNRELEASED}; got {date}.")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    for key, value in (("version", version(root)), ("date-released", date)):
        entries = re.findall(rf"^{key}: (.+)$", citation, flags=re.M)
        if entries != ([] if value is None else [value]):
            expected = f"no {key} before the release" if value is None else f"{key}: {value}"
            raise ReleaseError(f"CITATION.cff must have {expected}; got {entries}.")
    return date


def require_tag(tag: str, root: Path = ROOT) -> None:
    """Raise ReleaseError unless the tag is the version and the version has a date."""
    if tag != f"v{version(root)}":
        raise ReleaseError(f"the tag must be v{version(root)}, the version in version.py; got {tag}.")
    if released(root) is None:
        raise ReleaseError(f"CHANGELOG.md says {UNRELEASED}: write the date there and in CITATION.cff.")


def _only(pattern: str, path: Path) -> str:
    (match,) = re.findall(pattern, path.read_text(encoding="utf-8"), flags=re.M)
    return str(match)


# ---------------------------------------------------------------------- wheel and source distribution


def require_complete(wheel: Path, sdist: Path) -> None:
    """Raise ReleaseError unless the wheel is the package, and the source distribution the repository, exactly."""
    repository = _repository()
    package = {name.removeprefix("src/") for name in repository if name.startswith("src/")}
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.endswith("/")}
    _require_same(wheel, {name for name in names if ".dist-info/" not in name}, package)
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2] for member in archive if member.isfile()}
    _require_same(sdist, members - {"PKG-INFO"}, repository)


def _repository() -> set[str]:
    """All files that git has or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listing.stdout.split("\0") if (ROOT / name).is_file()}


def _require_same(archive: Path, names: set[str], expected: set[str]) -> None:
    if missing := sorted(expected - names):
        raise ReleaseError(f"{archive.name} lacks {', '.join(missing)}.")
    if surplus := sorted(names - expected):
        raise ReleaseError(f"{archive.name} must not contain {', '.join(surplus)}.")


def run_installed(wheel: Path, *, borrow: Path | None = None) -> None:
    """Install a wheel in a new environment and run `COMMANDS` in an empty folder.

    Args: borrow: a folder of packages to use as dependencies, without network. Default: install them.
    Raises: ReleaseError with the output of the command that fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        home, empty = Path(folder) / "environment", Path(folder) / "empty"
        empty.mkdir()
        venv.create(home, with_pip=borrow is None)
        programs = home / ("Scripts" if os.name == "nt" else "bin")
        python = str(programs / "python")
        if borrow is None:
            _run([python, "-m", "pip", "install", "--quiet", str(wheel)], empty)
        else:
            offline = ["--quiet", "--no-deps", "--no-index", str(wheel)]
            _run([sys.executable, "-m", "pip", "--python", python, "install", *offline], empty)
            site = _run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], empty).strip()
            (Path(site) / "borrowed.pth").write_text(f"{borrow}\n", encoding="utf-8")
        place = _run([python, "-c", "import tightframe; print(tightframe.__version__, tightframe.__file__)"], empty)
        if not place.startswith(f"{version()} {home}"):
            raise ReleaseError(f"the installed package must be version {version()} in {home}; got {place.strip()}.")
        for program, *arguments in COMMANDS:
            _run([str(programs / program), *arguments], empty)
        if leftovers := sorted(path.name for path in empty.iterdir()):
            raise ReleaseError(f"the commands must leave nothing behind; got {', '.join(leftovers)}.")


def _run(command: list[str], folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise ReleaseError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def main(arguments: list[str]) -> None:
    """`tag TAG` or `files FOLDER`."""
    match arguments:
        case ["tag", tag]:
            require_tag(tag)
        case ["files", folder]:
            (wheel,), (sdist,) = Path(folder).resolve().glob("*.whl"), Path(folder).resolve().glob("*.tar.gz")
            require_complete(wheel, sdist)
            run_installed(wheel)
        case _:
            raise ReleaseError(f"expected tag TAG or files FOLDER; got {' '.join(arguments) or 'nothing'}.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ReleaseError as error:
        sys.exit(f"release: {error}")
