"""The libraries of the extras: what needs them is imported here, so that none is missing without a clear line."""

import gc
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from traceback import walk_tb
from types import ModuleType

from datagen.errors import InputError
from datagen.installation import install_line

LIBRARIES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "pyarrow", "safetensors", "tokenizers",
    "huggingface_hub",
)  # fmt: skip
"""What our code imports of the train extra. An import that fails for another name is a fault of ours."""


def import_data(module: str, purpose: str) -> ModuleType:
    """Import a module of a library of the data extra; arguments and errors are those of `import_library`."""
    return import_library(module, purpose, "data")


def import_library(module: str, purpose: str, extra: str) -> ModuleType:
    """Import a module of a library.

    Args:
        module: Its full name, such as `pyarrow.parquet`.
        purpose: What needs it, as the first words of the message.
        extra: The extra that brings it.

    Raises:
        InputError: The library is not installed, or cannot be imported.
    """
    library = module.partition(".")[0]
    check_library(library, purpose, extra)
    try:
        return import_module(module)
    except (ImportError, OSError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(f"{library} cannot be imported: {reason}. To install: {install_line(extra)}") from error


def check_library(library: str, purpose: str, extra: str) -> None:
    """Raise InputError if a library is not installed; the arguments are those of `import_library`."""
    if find_spec(library) is None:
        raise InputError(f"{purpose}, {library} is needed. To install: {install_line(extra)}")


def import_extra(module: str, purpose: str) -> ModuleType:
    """Import a module of ours that needs the train extra.

    Args:
        module: Its full name.
        purpose: What needs it, as the first words of the message.

    Raises:
        InputError: A library is not installed, or cannot be imported: broken, or of a version that does not fit.
    """
    check_extra(purpose)
    if not sys.warnoptions:  # what they say to their callers: nothing that a user could change
        warnings.filterwarnings("ignore", category=FutureWarning)
    gc.disable()  # the libraries make many objects, all of which stay: there is no garbage to look for
    try:
        return import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library
        library = failed_library(error)
        if library is None:
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        message = f"{library} cannot be imported: {reason}. To install what fits: {install_line('train')}"
        raise InputError(message) from error
    finally:
        gc.enable()


def check_extra(purpose: str) -> None:
    """Raise InputError if a library of the train extra is not installed; `purpose` as in `import_extra`."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise InputError(f"{purpose} needs {', '.join(missing)}. To install: {install_line('train')}")


def failed_library(error: ImportError | OSError) -> str | None:
    """Return the library whose import failed; None if it was an import of our own code."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    if isinstance(error, ImportError):
        modules.insert(0, str(error.name))  # the only trace of a name that a library does not have
    names = [module.partition(".")[0] for module in modules]
    return next((name for name in reversed(names) if name in LIBRARIES), None)
