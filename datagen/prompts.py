"""From the files in prompts/ to chat messages.

A template is front matter, then one part per role on lines `[system]` and `[user]` of their own, in Jinja2. The
parts are split before anything is filled in and values are never rendered again, so user data with braces, tags or
a line `[user]` in it stays data. A missing value is an error, and so is one that the template does not use.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from datagen.errors import InputError
from datagen.records.record import Message, Messages, Text, as_messages, request_text

HERE = Path(__file__).resolve().parent
SHIPPED = HERE / "prompts" if (HERE / "prompts").is_dir() else HERE.parent / "prompts"
"""Inside the wheel the prompts lie in the package; in a checkout, beside it."""
ROLE_LINE = re.compile(r"^\[(system|user|assistant)\]\n", re.MULTILINE)
ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat request: what is asked, and for the procedural teacher what it is about."""

    messages: Messages
    task: str
    fields: Mapping[str, str]


def plain_prompt(prompt: Text) -> Prompt:
    """Turn a prompt into a chat request without a template."""
    return Prompt(as_messages(prompt), "answer", {"prompt": request_text(prompt)})


@dataclass(frozen=True)
class Template:
    """One prompt file, parsed."""

    name: str
    parts: tuple[tuple[str, jinja2.Template], ...]
    variables: frozenset[str]
    digest: str

    def render(self, **fields: str) -> Prompt:
        """Fill in the fields: exactly the ones that the template names."""
        if fields.keys() != self.variables:
            missing, unused = sorted(self.variables - fields.keys()), sorted(fields.keys() - self.variables)
            raise InputError(f"prompt {self.name}: missing values {missing}, unused values {unused}")
        try:
            messages: list[Message] = [
                {"role": role, "content": part.render(fields).strip()} for role, part in self.parts
            ]
        except Exception as error:  # a template is a program: it may divide by zero, or reach for what it must not
            raise InputError(f"prompt {self.name}: {error}") from error
        return Prompt(messages, self.name, fields)


def parse_template(name: str, text: str) -> Template:
    """Split a prompt file into its parts and compile them."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    before, *pieces = ROLE_LINE.split(body)
    if before.strip() or not pieces:
        raise InputError(f"prompt {name}: expected front matter, then a line [system] or [user]")
    sources = list(zip(pieces[::2], pieces[1::2], strict=True))
    try:
        parts = tuple((role, ENVIRONMENT.from_string(source)) for role, source in sources)
        asts = [ENVIRONMENT.parse(source) for _, source in sources]
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"prompt {name}: {error.message}") from error
    variables = frozenset().union(*(meta.find_undeclared_variables(ast) for ast in asts))
    return Template(name, parts, variables, sha256(body.strip().encode()).hexdigest()[:16])


def read_template(name: str, path: Path) -> Template:
    """Read a prompt from its file."""
    try:
        return parse_template(name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None


class Prompts:
    """The shipped prompts, with a user's folder taking precedence file by file."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder and not folder.is_dir():
            raise InputError(f"{folder}: no such folder of prompts")
        for path in sorted(folder.rglob("*.md")) if folder else ():
            if not (SHIPPED / path.relative_to(folder or path)).is_file():
                raise InputError(f"{path}: overrides no prompt; see the names in {SHIPPED}")
        self._get = cache(self._load)

    def __getitem__(self, name: str) -> Template:
        """Return a prompt; its name may end in a language, such as `.zh`, and is English without one."""
        return self._get(name)

    def _load(self, name: str) -> Template:
        name, _, language = name.partition(".")
        file = f"{name}.{language or 'en'}.md"
        own = self._folder / file if self._folder else None
        path = own if own and own.is_file() else SHIPPED / file
        return read_template(name, path)
