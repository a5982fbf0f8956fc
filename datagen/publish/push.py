"""`datagen push FOLDER REPO`: a data set or a model goes to the hub, for nobody else to see unless --public says so."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from datagen.engine.options import option
from datagen.errors import InputError
from datagen.libraries import check_library
from datagen.printing import printable
from datagen.publish.hub import Hub
from datagen.publish.listing import Upload, upload_of
from datagen.publish.pack import CARD, check_output, pack
from datagen.publish.pack import Options as PackOptions
from datagen.text import count_of

ARGUMENTS = (
    ("sources", "A folder of datagen pack, the folder of a model, or outputs, which are packed first.", True),
    ("repository", "The repository on the hub, OWNER/NAME."),
)
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
HEAD = re.compile(r"---\n(.*?)\n---", re.DOTALL)
MOST_LISTED = 20
"""Files that are named."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen push`."""

    public: bool = option(False, "Let everybody see the repository. It is private without this.")
    yes: bool = option(False, "With --public, do not ask.")
    license: str | None = option(None, "License for outputs that are packed here, such as cc-by-4.0.")
    message: str = option("Upload with datagen", "Message of the commit.", short="-m")
    dry_run: bool = option(False, "Show the files and the head of the card, and send nothing.")
    quiet: bool = option(False, "Print only warnings and errors.", short="-q")


def run(sources: list[str], repository: str, options: Options) -> int:
    """Upload; return the exit code."""
    if not NAME.fullmatch(repository):
        raise InputError(f"{repository}: the last word is the repository, OWNER/NAME")
    check_library("huggingface_hub", "to upload", "data")
    with folder_of(sources, repository, options) as folder:
        upload = upload_of(folder)
        if options.dry_run or not options.quiet:
            show(upload, folder, repository, public=options.public, with_head=options.dry_run)
        if options.dry_run:
            print("Nothing was sent.", file=sys.stderr)
            return 0
        hub = Hub(repository, upload.kind, quiet=options.quiet or not sys.stderr.isatty())
        make_repository(hub, repository, options)
        address = hub.commit(upload, options.message)
    if not options.quiet:
        seen = "everybody sees it" if options.public else "private"
        print(printable(f"Uploaded: {address}   {seen}"), file=sys.stderr)
    return 0


@contextmanager
def folder_of(sources: list[str], repository: str, options: Options) -> Iterator[Path]:
    """Yield the folder to upload; outputs are packed into one that is gone afterwards.

    Raises:
        InputError: Several folders are named, or folders and outputs.
    """
    if len(sources) == 1 and not Path(sources[0]).is_file():
        yield Path(sources[0])
        return
    if folder := next((name for name in sources if Path(name).is_dir()), None):
        raise InputError(f"{folder}: is a folder, which is uploaded alone; outputs are named together")
    with TemporaryDirectory() as place:
        folder_path = Path(place, repository.partition("/")[2])
        pack([check_output(name) for name in sources], PackOptions(output=folder_path, license=options.license))
        yield folder_path


def show(upload: Upload, folder: Path, repository: str, *, public: bool, with_head: bool) -> None:
    """Say what is uploaded, where to, and who will see it."""
    seen = "PUBLIC: everybody sees it" if public else "private"
    lines = [
        f"{count_of(len(upload.files), 'file')}, {upload.size:,} bytes, to the {upload.kind} {repository} ({seen})",
        *(f"  {name}  {path.stat().st_size:,} bytes" for name, path in upload.files[:MOST_LISTED]),
    ]
    if (rest := len(upload.files) - MOST_LISTED) > 0:
        lines.append(f"  and {rest:,} more")
    if with_head and (head := HEAD.match((folder / CARD).read_text(encoding="utf-8", errors="replace"))):
        lines += ["The card begins:", head[0]]
    print(printable("\n".join(lines)), file=sys.stderr)


def make_repository(hub: Hub, repository: str, options: Options) -> None:
    """Create the repository if there is none, after a question if everybody is to see it.

    Raises:
        InputError: It is there, and who sees it is not what was asked for; or the answer was no.
    """
    is_private = hub.is_private()
    if is_private is False and not options.public:
        raise InputError(
            f"{repository}: exists and is public, so everybody would see what is uploaded. Add --public if that is "
            "meant, or name another repository"
        )
    if is_private and options.public:
        raise InputError(
            f"{repository}: exists and is private; without --public this uploads to it. Its page changes who sees it"
        )
    if options.public and not options.yes:
        confirm(repository)
    if is_private is None:
        hub.create(private=not options.public)
        if not options.public and not hub.is_private():
            raise InputError(
                f"{repository}: the hub has made it public, though it was to be private; nothing was uploaded"
            )


def confirm(repository: str) -> None:
    """Ask on a terminal whether everybody may see it; raise InputError for anything but yes."""
    if not sys.stdin.isatty():
        raise InputError("--public: everybody will see it; confirm with --yes")
    print(printable(f"Everybody will see {repository}. Upload? [y/N] "), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError("nothing was uploaded")
