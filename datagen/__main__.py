"""Run the command line: `python -m datagen`."""

from datagen.commands.main import main

if __name__ == "__main__":
    main()
