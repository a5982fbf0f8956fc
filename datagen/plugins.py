"""Code of others by its name: `FILE.py:NAME`, or a name that an installed package registers.

A package registers in the entry-point group `datagen`; its names begin with the kind:

    [project.entry-points.datagen]
    "verifier.even" = "my_package.checks:even"

A file is read once, and the bytes that its digest is of are the bytes that are run. Each version of a file is one
module, so its classes are the same wherever they are named. While a file is run, its folder stands at the end of the
search path: it can import its neighbours at its top, and nothing in it hides a module of Python or of a package.

This is the user's code, run in this process with the user's rights. No name of it comes from a model or from a row.
"""

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from hashlib import sha256
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from types import MappingProxyType, ModuleType
from typing import Any

from datagen.errors import InputError, causes
from datagen.text import count_of

GROUP = "datagen"
"""The group of entry points."""
FILE_NAME = "FILE.py:NAME"
REFERENCE = re.compile(r"(.+\.py):([^\W\d]\w*)", re.DOTALL)
DIGEST_LENGTH = 16
MOST_WORDS = 200
"""Characters of what an exception says that stand in a row."""
MOST_NOTES = 3
"""Different exceptions that the end of a run names."""
LOADED: set[str] = set()
"""The files whose code was loaded."""
KINDS = {
    "generator": "datagen NAME",
    "strategy": "respond --strategy NAME",
    "judge": "judge --by NAME",
    "self-instruct": "self-instruct --mode NAME",
    "evolve": "evolve --style NAME",
    "improve": "improve --by NAME",
    "pairs": "pairs --by NAME",
    "verifier": "--verify NAME, --reward verifier:NAME",
    "filter": "filter --rule NAME",
    "reward": "train --reward NAME",
    "model": "--model NAME",
}
"""What a package can register, and where the name is then accepted."""


@dataclass(frozen=True)
class Plugin:
    """An object of somebody else's code that was named, and not loaded yet."""

    name: str
    """As the user named it."""
    identity: str
    """Its name, where it comes from, and a digest of the file: an edited object is another one."""
    load: Callable[[], Any]
    """Runs the code, the first time, and returns the object; InputError if it cannot be loaded."""


IN_MEMORY: dict[str, Plugin] = {}
"""Objects of this process, by the words that name them (`objects.py`)."""


def find_plugin(kind: str, name: str) -> Plugin | None:
    """Return what a name means, without running any of its code; None if it is no FILE.py:NAME and not registered.

    Args:
        kind: What is looked for, such as "verifier".
        name: FILE.py:NAME, or a registered name without its kind.

    Raises:
        InputError: There is no such file, or several packages register the name.
    """
    if name in IN_MEMORY:
        return IN_MEMORY[name]
    if match := REFERENCE.fullmatch(name):
        file, attribute = match.groups()
        source = read_source(Path(file))
        identity = f"{short_name(name)}/{digest_of(source)}"
        return Plugin(name, identity, partial(load_attribute, file, source, attribute))
    points = registered(kind).get(name)
    return registered_plugin(kind, name, points) if points else None


def short_name(name: str) -> str:
    """Return the name of a plug-in as it stands in rows: that of a file without its folder."""
    match = REFERENCE.fullmatch(name)
    return f"{Path(match[1]).name}:{match[2]}" if match else name


def load_object(name: str) -> Any:
    """Run a file and return an object in it.

    Args:
        name: FILE.py:NAME.

    Raises:
        InputError: The text has another form, there is no such file or name, or the file cannot be run.
    """
    if not REFERENCE.fullmatch(name):
        raise InputError(f"{name}: expected FILE.py:NAME")
    plugin = find_plugin("", name)
    assert plugin
    return plugin.load()


# Files


def read_source(path: Path) -> bytes:
    """Return the contents of a file of Python; InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from None


def digest_of(source: bytes) -> str:
    """Return the digest of a file's contents, as it stands in identities."""
    return sha256(source).hexdigest()[:DIGEST_LENGTH]


def load_attribute(file: str, source: bytes, attribute: str) -> Any:
    """Return an object of a file's module; InputError if it cannot be run, or has no such name."""
    path = Path(file).resolve()
    module = run_file(path, source)
    return attribute_of(module, attribute, str(path))


def attribute_of(module: ModuleType, attribute: str, place: str) -> Any:
    """Return an object of a module; InputError names the nearest if there is none of this name."""
    if attribute in vars(module):
        return vars(module)[attribute]
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    near = get_close_matches(attribute, names, 1)
    hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(names[:10]) or 'no function and no class'}."
    raise InputError(f"{place}: has no {attribute}. {hint}")


@cache
def run_file(path: Path, source: bytes) -> ModuleType:
    """Run a file as a module, once for each version of it.

    The module is known to Python by a name of its own, which dataclasses and pickle look up.

    Raises:
        InputError: It cannot be run.
    """
    module = ModuleType(f"{path.stem}_{sha256(str(path).encode() + source).hexdigest()[:DIGEST_LENGTH]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    LOADED.add(str(path))
    try:
        with folder_at_end(str(path.parent)), failures_explained(str(path)):
            exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except InputError:
        del sys.modules[module.__name__]
        raise
    return module


class Faults:
    """The exceptions of a function of others, which end no run: they are counted, and named at its end.

    Args:
        function: It.
        name: As the user named it.
    """

    def __init__(self, function: Any, name: str) -> None:
        self._name, self._file = name, getattr(inspect.getmodule(function), "__file__", None)
        self._counts = Counter[str]()

    def add(self, error: BaseException) -> str:
        """Count an exception; return what it says, in one line of at most MOST_WORDS characters."""
        words = f"{self._name}: {type(error).__name__}: {error}".removesuffix(": ")
        words = " ".join(words.split())[:MOST_WORDS]
        place = f" at {line_of(error, self._file)}" if self._file and error.__traceback__ else ""
        self._counts[f"{words}{place}"] += 1
        return words

    @property
    def notes(self) -> list[str]:
        """The most frequent ones, a sentence for each without its full stop."""
        return [f"{words} ({count_of(number, 'time')})" for words, number in self._counts.most_common(MOST_NOTES)]


class OutsideFunction:
    """A function of others that is called for each row: a verifier, a rule.

    Args:
        plugin: Where it comes from.
        function: It, loaded.
    """

    def __init__(self, plugin: Plugin, function: Callable[..., Any]) -> None:
        self.plugin, self.function = plugin, function
        self.faults = Faults(function, plugin.name)

    @property
    def name(self) -> str:
        return self.plugin.name

    @property
    def identity(self) -> str:
        return self.plugin.identity


def find_function(kind: str, name: str) -> OutsideFunction | None:
    """Load a plain function by its name; None if the name is no FILE.py:NAME and not registered.

    Raises:
        InputError: It cannot be loaded, or is something else than a function that is not async.
    """
    plugin = find_plugin(kind, name)
    if plugin is None:
        return None
    function = plugin.load()
    if not callable(function) or isinstance(function, type):
        raise InputError(f"{kind} {name}: is {kind_of(function)}, not a function")
    if inspect.iscoroutinefunction(function):
        raise InputError(f"{kind} {name}: is async; a {kind} is a plain function")
    return OutsideFunction(plugin, function)


def plugin_line(error: BaseException) -> str | None:
    """Return the file and line of code of others that an exception came through; None if it came through none."""
    frames = [frame for cause in causes(error) for frame in extract_tb(cause.__traceback__)]
    lines = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename in LOADED]
    return lines[-1] if lines else None


def kind_of(value: object) -> str:
    """Return what a value is, for a message."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"a value of type {type(value).__name__}"


@contextmanager
def folder_at_end(folder: str) -> Iterator[None]:
    """Let a folder be searched for modules after all others; one that is searched already stays where it is."""
    is_new = folder not in sys.path
    if is_new:
        sys.path.append(folder)
    try:
        yield
    finally:
        if is_new and folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def failures_explained(place: str) -> Iterator[None]:
    """Turn whatever is raised while code of others is loaded into one line with the line of the file.

    Args:
        place: The file, or the module of a package.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise InputError(f"{line_of(error, place)}: cannot be loaded: {' '.join(problem.split())}") from error


def line_of(error: BaseException, place: str) -> str:
    """Return the file and the line where its code failed: the last line in the file itself, if there is one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == place]
    return f"{place}:{lines[-1]}" if lines else place


# Packages


@cache
def all_registered() -> Mapping[str, Mapping[str, tuple[metadata.EntryPoint, ...]]]:
    """Return what the installed packages register: by kind and name, several where several packages took one name."""
    table: dict[str, dict[str, tuple[metadata.EntryPoint, ...]]] = {}
    for point in metadata.entry_points(group=GROUP):
        kind, _, name = point.name.partition(".")
        names = table.setdefault(kind, {})
        names[name] = (*names.get(name, ()), point)
    return MappingProxyType(table)


def registered(kind: str) -> Mapping[str, tuple[metadata.EntryPoint, ...]]:
    """Return what is registered of a kind, by name. No code of the packages is run."""
    return all_registered().get(kind, {})


def registered_plugin(kind: str, name: str, points: tuple[metadata.EntryPoint, ...]) -> Plugin:
    """Return a registered object; InputError if several packages register its name."""
    if len(points) > 1:
        packages = " and ".join(sorted(map(package_of, points)))
        raise InputError(f"{kind} {name}: is registered by {packages}; uninstall one of them")
    (point,) = points
    return Plugin(name, f"{name}/{package_of(point)}/{module_digest(point)}", partial(load_registered, point))


def package_of(point: metadata.EntryPoint) -> str:
    """Return the package that registers something, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.module


def load_registered(point: metadata.EntryPoint) -> Any:
    """Import the object of an entry point; InputError if it cannot be imported."""
    place = f"{package_of(point)}: {point.value}"
    try:
        origin = module_file(point)
        LOADED.add(str(origin))
        with failures_explained(str(origin or point.module)):
            return point.load()
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def module_file(point: metadata.EntryPoint) -> Path | None:
    """Return the file of an entry point's module; None if there is none."""
    with failures_explained(point.module):
        spec = find_spec(point.module)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def module_digest(point: metadata.EntryPoint) -> str:
    """Return the digest of the file of an entry point's module."""
    try:
        file = module_file(point)
        return digest_of(read_source(file)) if file else "none"
    except InputError as error:
        raise InputError(f"{package_of(point)}: {point.value}: {error}") from error
