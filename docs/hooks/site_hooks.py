"""Hooks of MkDocs: the generated pages, the project's own pages, and texts that stand in one place only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import site_docstrings
import site_pages
import site_reference

REPOSITORY = Path(__file__).parents[2]
_REMOTE = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//"""
    r"""|<link[^>]*rel=["']?(?:stylesheet|preload|preconnect|icon)["']?[^>]*href=["']?(?:https?:)?//"""
)


def on_config(config: Any) -> Any:
    """The generated pages enter the navigation."""
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = site_reference.navigation()
        if "Project" in entry:
            entry["Project"] = [*site_pages.navigation(), *entry["Project"]]
    return config


def on_files(files: Any, config: Any) -> Any:
    """The generated pages enter the site."""
    for path, text in {**site_reference.pages(), **site_pages.pages()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Insertions are made, and marks for the tests are left out of fences."""
    text = site_pages.completed(markdown)
    if not page.file.src_uri.startswith(site_reference.ROOT):
        text = site_docstrings.linked(text, "")
    return text


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Nothing is loaded from the network."""
    if (found := _REMOTE.search(output)) is not None:
        raise PluginError(f"{page.file.src_uri} loads from the network: {found[0]}")
    return output
