"""The program: `datagen`, or `python -m datagen`."""

import sys

from datagen import signals, streams


def main() -> None:
    """Run the command line. It is imported in here, so that a signal or a fault at an import ends in one line too."""
    streams.prepare()
    signals.listen()
    try:
        from datagen.printing import guard_streams

        guard_streams()
        from datagen.commands.main import main as run_command_line

        run_command_line()
    except SystemExit:
        raise
    except BaseException as error:
        from datagen.commands.faults import report_fault

        sys.exit(report_fault(error))
    finally:
        signals.stop_listening()


if __name__ == "__main__":
    main()
