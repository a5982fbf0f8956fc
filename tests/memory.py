"""The peak memory of a command, in a process of its own."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

CODE = """
import sys
from pathlib import Path
from datagen.commands.main import main

place = Path(sys.argv.pop(1))
try:
    main()
finally:
    place.write_text(Path("/proc/self/status").read_text())
"""


def peak_of(*command: str | Path, folder: Path = Path()) -> int:
    """Run `datagen` with these arguments in a folder; return the largest resident set of its process, in bytes.

    The process reads it itself: `getrusage` counts what its parent had at the fork.
    """
    with TemporaryDirectory() as place:
        file = Path(place, "status")
        subprocess.run([sys.executable, "-c", CODE, file, *command], cwd=folder, check=True, capture_output=True)
        return int(file.read_text().partition("VmHWM:")[2].split()[0]) << 10
