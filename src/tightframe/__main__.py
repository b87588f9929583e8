"""The program: `tightframe` and `python -m tightframe`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is imported ends it, too."""
    try:
        from tightframe.cli import main as run

        run()
    except KeyboardInterrupt:
        print("stopped: nothing was written.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
