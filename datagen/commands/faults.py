"""An exception that nothing has expected: one line for the person, and a file with all that a report of it needs.

Some exceptions of libraries have causes that a person can remove; for these the line says how, and there is no file.
"""

import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import gettempdir
from time import gmtime, strftime
from traceback import format_exception

import datagen
from datagen import signals
from datagen.errors import DatagenError
from datagen.installation import shown
from datagen.plugins import plugin_line

DEBUG = "DATAGEN_DEBUG"
KNOWN = (
    (r"OutOfMemoryError|MemoryError|DefaultCPUAllocator|out of memory", "there is not enough memory",
     "Lower --batch-size or --max-length when training, --concurrency for a local model, or take a smaller model"),
    (r"probability tensor contains", "the model computes no probabilities any more: it has diverged",
     "Lower --learning-rate, or go on from a model that was saved before"),
    (r"PanicException", "the library of the tokenizer has stopped",
     "The tokenizer of the model does not fit it, or is damaged: load the model again, or take another one"),
    (r"jinja2\.", "the chat template of the model cannot be used",
     "Repair chat_template.jinja or tokenizer_config.json in its folder, or take another model"),
    (r"UnicodeEncodeError", "the terminal or the file cannot hold this text in its encoding",
     "Set PYTHONUTF8=1"),
)  # fmt: skip
"""A pattern of the exception's type and message, what has happened, and the way out."""
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "openai", "typer")
SECRETS = re.compile(r"(?<=://)[^/\s@]+(?=@)|\bsk-[\w-]{8,}")
"""What may be a key: user and password in a URL, and the form of the keys of many services."""


def report_fault(error: BaseException) -> int:
    """Print the line for an exception that is no DatagenError; return the exit code."""
    if isinstance(error, KeyboardInterrupt) or (signals.LIFELINE in os.environ and signals.is_asked()):
        signals.end_process()  # the other processes of the run have left: what failed here is a consequence
    from datagen.printing import printable

    sentence = known_sentence(error)
    if sentence is None and (place := plugin_line(error)):
        sentence = f"{place}: {summary(error)}. This is code of a plug-in; {DEBUG}=1 shows the details"
    if sentence is None:
        file = write_report(error)
        more = f"details in {shown(file)}" if file else f"{DEBUG}=1 shows the details"
        sentence = f"{summary(error)}; this is a bug in datagen: {more}"
    if os.environ.get(DEBUG) or {"-v", "--verbose"} & set(sys.argv):
        print(printable(details(error)), file=sys.stderr)
    print(f"error: {printable(sentence)}", file=sys.stderr)
    return DatagenError.exit_code


def summary(error: BaseException) -> str:
    """Return type and first line of an exception, at most 300 characters."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}{': ' if first else ''}{SECRETS.sub('***', first)}"[:300].rstrip(".")


def known_sentence(error: BaseException) -> str | None:
    """Return the line for an exception whose cause a person can remove."""
    name = f"{type(error).__module__}.{type(error).__name__}: {error}"
    matches = ((what, way) for pattern, what, way in KNOWN if re.search(pattern, name[:1000]))
    return next((f"{what} ({summary(error)}). {way}" for what, way in matches), None)


def write_report(error: BaseException) -> Path | None:
    """Write the details of an exception beside the output of the command, or where else that is possible."""
    name = f"datagen-error-{strftime('%Y%m%d-%H%M%S', gmtime())}"
    text = details(error).encode(errors="backslashreplace")
    for folder in (output_folder(sys.argv[1:]), Path(), Path(gettempdir())):
        for path in (folder / f"{name}{suffix}.txt" for suffix in ("", *(f"-{number}" for number in range(2, 100)))):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # it may hold private text
            except FileExistsError:
                continue
            except OSError:
                break
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            return path
    return None


def output_folder(arguments: Sequence[str]) -> Path:
    """Return the folder of the output that a command line names; the working folder if it names none."""
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, joined = option.partition("=")
        if name in ("-o", "--output"):
            return Path(joined if equals else value).parent
    return Path()


def details(error: BaseException) -> str:
    """Return the versions, the command line without keys, and the traceback. The environment stays out."""
    lines = [
        f"datagen {datagen.__version__}, Python {platform.python_version()}, {platform.platform()}",
        ", ".join(f"{name} {number}" for name in LIBRARIES if (number := version_of(name))),
        f"command: {SECRETS.sub('***', shlex.join(sys.argv))}",
        "",
        SECRETS.sub("***", "".join(format_exception(error))),
    ]
    return "\n".join(lines)


def version_of(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
