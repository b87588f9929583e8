"""`python -m tightframe.cli`."""

from tightframe.cli import main

main()
