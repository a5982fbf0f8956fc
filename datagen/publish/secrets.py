"""What may not leave this machine: keys in the environment, addresses of private servers."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from datagen.errors import InputError
from datagen.llm.database import JOURNAL
from datagen.llm.gather import Gathered, saved_rows
from datagen.llm.keys import provider_of
from datagen.llm.spec import is_loopback
from datagen.publish.chain import Step
from datagen.records.files import BLOCK

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Names of environment variables that hold a secret."""
SHORTEST = 12
"""Characters of a value that is taken for a secret: a shorter one may be a word."""
ADDRESS = re.compile(r"https?://[^\s,]+", re.IGNORECASE)


def environment_secrets() -> list[str]:
    """Return the secrets in the environment, as far as their names tell."""
    return [value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST]


def private_hosts(steps: Iterable[Step]) -> list[str]:
    """Return the hosts of the servers that were asked, but for this machine and for known providers."""
    texts = (text for step in steps for specs in step.meta["run"].get("models", {}).values() for text in specs)
    urls = {url for text in texts for url in ADDRESS.findall(str(text))}
    hosts = {urlsplit(url).netloc for url in urls if not is_loopback(url) and not provider_of(url)}
    return sorted(host for host in hosts if host)


def refuse_secret(place: str, value: object, secrets: Sequence[str]) -> None:
    """Raise InputError if a text or a row holds one of some secrets; the secret is not shown."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if any(secret in text for secret in secrets):
        raise InputError(
            f"{place} holds a key of the environment, the address of a private server or a folder of this machine, so "
            "it is not published"
        )


def refuse_in_folder(folder: Path, secrets: Sequence[str]) -> None:
    """Raise InputError if a file of a replay holds one of some secrets."""
    for path in sorted(folder.rglob("*")):
        if path == folder / JOURNAL:
            for row in saved_rows(path, Gathered()):
                refuse_secret("a recorded answer", row.body.decode(errors="replace"), secrets)
        elif path.is_file():
            refuse_in_file(path, secrets)


def refuse_in_file(path: Path, secrets: Sequence[str]) -> None:
    """Raise InputError if a file holds one of some secrets."""
    longest, before = max(map(len, secrets), default=0), ""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            text = before + block.decode(errors="replace")
            refuse_secret(path.name, text, secrets)
            before = text[-longest:] if longest else ""
