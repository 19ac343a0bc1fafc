"""The program `safer-offline`, also as `python -m safer_offline`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it loads ends it as quietly as later."""
    try:
        from safer_offline.cli.main import main as run_command_line  # noqa: PLC0415

        run_command_line()
    except KeyboardInterrupt as error:
        sys.exit(getattr(error, "exit_code", 130))


if __name__ == "__main__":
    main()
