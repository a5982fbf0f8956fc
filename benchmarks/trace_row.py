"""The path of one row through the code: which functions it calls first, in which order, and how often the file changes.

    python -m benchmarks.trace_row [--list]

One seed goes through `datagen evolve --rounds 1` with the model `sim`, in this process and in a temporary folder.
It prints the number of functions that the run calls, of their files, of changes of file along the sequence of first
calls, and of returns: changes to a file that was entered and left before. Fewer returns mean that the code can be read
in the order in which it runs. With --list, it prints the sequence first, one function per line, with `<-` at each
return.

The rule. A function is a `def` or `async def` of a module or a class in the packages `datagen` and `datagen_train`,
`sim` included. It is identified by its file and qualified name, and counts once, when it is first called. Module
bodies, class bodies, lambdas, comprehensions, functions inside of functions and generated methods (of dataclasses) do
not count. A dry run with another model precedes the trace, so that nearly all imports are done by then: what runs only
when a module is imported does not count, except for modules that a run needs and a dry run does not (those of `sim`).

The command is started by its installed script, and the packages are located by their names: the files in them may lie
anywhere.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import entry_points
from importlib.util import find_spec
from inspect import CO_OPTIMIZED
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any, NamedTuple
from unittest.mock import patch

COMMAND, PACKAGES = "datagen", ("datagen", "datagen_train")
SEED = {"prompt": "How many apples are left when 3 of 7 are eaten?"}
NO_MODEL = "none@http://localhost"
"""The model of the dry run, which sends nothing."""


class Function(NamedTuple):
    """A function of the project."""

    file: str
    """Relative to the folder that holds the package."""
    name: str


class Trace:
    """The functions in the order of their first calls; an instance is a profile function."""

    def __init__(self, folders: list[Path]) -> None:
        self._roots = {f"{folder}/": folder.parent for folder in folders}
        self._calls: dict[Function, None] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and is_function(frame.f_code):
            file = frame.f_code.co_filename
            for prefix, root in self._roots.items():
                if file.startswith(prefix):
                    self._calls.setdefault(Function(str(Path(file).relative_to(root)), frame.f_code.co_qualname))

    def functions(self) -> list[Function]:
        return list(self._calls)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Record the calls of this thread, and of those that start meanwhile."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def is_function(code: CodeType) -> bool:
    """Tell a function of a module or a class from bodies, lambdas, comprehensions and functions inside of functions."""
    return "<" not in code.co_qualname and bool(code.co_flags & CO_OPTIMIZED)


def package_folders() -> list[Path]:
    """Return the folders of the project's packages, as far as they exist."""
    specs = filter(None, map(find_spec, PACKAGES))
    return [Path(folder) for spec in specs for folder in spec.submodule_search_locations or ()]


def entry_point() -> Callable[[], object]:
    """Return what the installed script `datagen` calls."""
    (script,) = entry_points(group="console_scripts", name=COMMAND)
    main: Callable[[], object] = script.load()
    return main


def run_command(main: Callable[[], object], *arguments: str) -> None:
    """Run the command in this process without its output; any exit code but 0 is an error."""
    output = StringIO()
    code: object
    with patch.object(sys, "argv", [COMMAND, *arguments]), redirect_stdout(output), redirect_stderr(output):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    if code:
        raise RuntimeError(f"{COMMAND} {' '.join(arguments)}: exit code {code}\n{output.getvalue()}")


def trace_row() -> list[Function]:
    """Evolve one seed into one row; return the functions in the order of their first calls."""
    main, trace = entry_point(), Trace(package_folders())
    with TemporaryDirectory() as folder:
        seeds, rows = Path(folder, "seeds.jsonl"), Path(folder, "rows.jsonl")
        seeds.write_text(json.dumps(SEED) + "\n", encoding="utf-8")
        command = ("evolve", str(seeds), "-o", str(rows), "--rounds", "1")
        run_command(main, *command, "--model", NO_MODEL, "--dry-run")
        with trace.active():
            run_command(main, *command, "--model", "sim")
        if len(rows.read_text(encoding="utf-8").splitlines()) != 1:
            raise RuntimeError("the seed did not become one row")
    return trace.functions()


def changes_of_file(functions: list[Function]) -> list[bool | None]:
    """Say of each function whether its file is entered anew (False) or again (True); None where it stays the same."""
    changes: list[bool | None] = []
    current, entered = functions[0].file, {functions[0].file}
    for function in functions:
        changes.append(None if function.file == current else function.file in entered)
        current = function.file
        entered.add(current)
    return changes


def print_list(functions: list[Function], changes: list[bool | None]) -> None:
    """Print a line a function: its file, its name, and a mark at a return."""
    width = max(len(function.file) for function in functions)
    for function, change in zip(functions, changes, strict=True):
        print(f"{function.file:{width}}  {function.name}{'  <-' if change else ''}")
    print()


def main() -> None:
    functions = trace_row()
    changes = changes_of_file(functions)
    if "--list" in sys.argv:
        print_list(functions, changes)
    print(f"functions     {len(functions):4}")
    print(f"files         {len({function.file for function in functions}):4}")
    print(f"file changes  {sum(change is not None for change in changes):4}")
    print(f"returns       {changes.count(True):4}")


if __name__ == "__main__":
    main()
