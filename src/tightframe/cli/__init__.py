"""The command line: arguments in, calls to the library out. Importing it loads no torch."""

from tightframe.cli.app import main

__all__ = ["main"]
