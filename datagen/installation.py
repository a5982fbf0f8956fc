"""How this installation is started and extended: the program's name, and the line that installs an extra.

Whatever the tool prints as the next command must work where it is printed, with or without an activated environment.
"""

import json
import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "datagen-train"


def program() -> str:
    """Return the words that start this program here: `datagen` if the shell finds this one, else its path."""
    started = Path(sys.argv[0])
    if started.parts[-2:] == ("datagen", "__main__.py"):
        return f"{python()} -m datagen"
    if started.name != "datagen":  # called by another program, as the tests do
        return "datagen"
    on_path = which("datagen")
    return "datagen" if on_path and os.path.samefile(on_path, started) else shown(started)


def python() -> str:
    """Return the word that starts this Python here."""
    on_path = which("python")
    # Not samefile: in a virtual environment the executable is a link to one that does not see its packages.
    return "python" if on_path == sys.executable else shown(sys.executable)


def install_line(extra: str) -> str:
    """Return the command that adds an extra (such as `train`) to this installation.

    It names what was installed: a checkout, a wheel or the package of an index.
    """
    words = [installer()]
    source, is_editable = installed_from()
    if (constraints := source / "constraints.txt").exists():
        words += ["-c", shown(constraints)]
    name = near(source) if source.exists() else DISTRIBUTION
    return " ".join([*words, *(["-e"] if is_editable else []), shlex.quote(f"{name}[{extra}]")])


def installer() -> str:
    """Return the words that install packages into this environment."""
    return f"{python()} -m pip install" if find_spec("pip") else f"uv pip install --python {shown(sys.executable)}"


def installed_from() -> tuple[Path, bool]:
    """Return the folder or file that the package was installed from, and whether it is installed as editable.

    The path does not exist for a package that comes from an index (PEP 610).
    """
    try:
        record = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # a checkout that is only on the path
        return Path(__file__).resolve().parents[1], True
    path = Path(unquote(urlsplit(record.get("url", "")).path) or os.devnull + "/none")
    return path, bool(record.get("dir_info", {}).get("editable"))


def shown(path: str | Path) -> str:
    """Return a path as a word of a shell command."""
    return shlex.quote(near(path))


def near(path: str | Path) -> str:
    """Return a path, relative to the working folder if it is inside it."""
    inside = os.path.relpath(path)
    return str(path) if inside.startswith("..") else inside
