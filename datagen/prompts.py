"""Render the prompt templates in prompts/ as the messages of a chat request.

A template file is front matter, then one part per role, each after a line `[system]` or `[user]`, in Jinja2. The parts
are split before values are filled in, and values are never rendered again: user data with braces, tags or a line
`[user]` in it stays data. A missing value is an error, and so is a value that the template does not use.

A template has values, conditions and filters, and no loops, calls or arithmetic: then its text is never longer than its
own and that of its values, and no template can stall a run or fill the memory.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from datagen.errors import InputError
from datagen.records.record import Message, Prompt

HERE = Path(__file__).resolve().parent
SHIPPED = HERE / "prompts" if (HERE / "prompts").is_dir() else HERE.parent / "prompts"
"""The shipped templates: inside the package in a wheel, beside it in a checkout."""
ROLE_LINE = re.compile(r"^\[(system|user|assistant)\]\n", re.MULTILINE)
ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
)
NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter, nodes.Test),
    *(nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
)
FILTERS = ("trim", "upper", "lower", "capitalize", "title", "length", "wordcount", "first", "last", "default")
"""What a template may be made of."""


@dataclass(frozen=True)
class Template:
    """One template file, parsed."""

    name: str
    parts: tuple[tuple[str, jinja2.Template], ...]
    """Pairs of role and text."""
    variables: frozenset[str]
    digest: str
    """Of the text without its front matter, 16 hex digits."""

    def render(self, **fields: str) -> Prompt:
        """Fill in the template.

        Args:
            fields: A value for every variable of the template, and for no other.

        Raises:
            InputError: A value is missing or unused, or the template fails.
        """
        if fields.keys() != self.variables:
            missing, unused = sorted(self.variables - fields.keys()), sorted(fields.keys() - self.variables)
            raise InputError(f"prompt {self.name}: missing values {missing}, unused values {unused}")
        try:
            messages: list[Message] = [
                {"role": role, "content": part.render(fields).strip()} for role, part in self.parts
            ]
        except Exception as error:  # it may compare a text with a number, or be stopped by the sandbox
            raise InputError(f"prompt {self.name}: {error}") from error
        return Prompt(messages, self.name, fields)


def parse_template(name: str, text: str) -> Template:
    """Parse the text of a template file; `name` is for messages."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    before, *pieces = ROLE_LINE.split(body)
    if before.strip() or not pieces:
        raise InputError(f"prompt {name}: expected front matter, then a line [system] or [user]")
    sources = list(zip(pieces[::2], pieces[1::2], strict=True))
    try:
        trees = [ENVIRONMENT.parse(source) for _, source in sources]
        for tree in trees:
            refuse_programs(name, tree)  # before it is compiled, which computes constants
        parts = tuple((role, ENVIRONMENT.from_string(source)) for role, source in sources)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"prompt {name}: {error.message}") from error
    except RecursionError:
        raise InputError(f"prompt {name}: is nested too deeply") from None
    variables = frozenset().union(*(meta.find_undeclared_variables(tree) for tree in trees))
    return Template(name, parts, variables, sha256(body.strip().encode()).hexdigest()[:16])


def refuse_programs(name: str, tree: nodes.Template) -> None:
    """Raise InputError if a template is more than values, conditions and filters."""
    for node in tree.find_all(nodes.Node):
        filter_name = node.name if isinstance(node, nodes.Filter) else None
        if not isinstance(node, NODES) or (filter_name and filter_name not in FILTERS):
            what = f"the filter {filter_name}" if filter_name else type(node).__name__
            raise InputError(
                f"prompt {name}: {what} is not allowed. A prompt has values, conditions, and the filters "
                f"{', '.join(FILTERS)}; no loops, calls or arithmetic"
            )


def read_text(path: Path) -> str:
    """Return the text of a template file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None


def read_template(name: str, path: Path) -> Template:
    """Read a template from its file."""
    return parse_template(name, read_text(path))


class Prompts:
    """The prompt templates by name; a file in the user's folder replaces the one of the same name.

    Args:
        folder: The user's folder (`--prompts`), laid out as the shipped one.
        own: The folder of a plug-in, whose templates stand beside the shipped ones.

    Raises:
        InputError: There is no such folder, or a file in it replaces no template.
    """

    def __init__(self, folder: Path | None = None, own: Path | None = None) -> None:
        self._folder, self._own = folder, own
        self._loaded: dict[str, Template] = {}
        self._texts: dict[str, str] = {}
        """Those of the folder, where this came from another machine; by their path in it."""
        if folder and not folder.is_dir():
            raise InputError(f"{folder}: no such folder of prompts")
        for path in sorted(folder.rglob("*.md")) if folder else ():
            if not self._origin(str(path.relative_to(folder or path))).is_file():
                raise InputError(f"{path}: overrides no prompt; see the names in {own or SHIPPED}")

    def __getstate__(self) -> dict[str, Any]:
        """Take the user's templates along to a machine that does not have the folder."""
        paths = sorted(self._folder.rglob("*.md")) if self._folder else ()
        texts = {str(path.relative_to(self._folder or path)): read_text(path) for path in paths}
        return {"_folder": None, "_own": None, "_loaded": {}, "_texts": self._texts | texts}

    def _origin(self, file: str) -> Path:
        """Return the path of a template that is not the user's: that of the plug-in, else the shipped one."""
        own = self._own / file if self._own else None
        return own if own and own.is_file() else SHIPPED / file

    def __getitem__(self, name: str) -> Template:
        """Return a template, such as `evolve/equal`; `.zh` at the end of its name asks for the Chinese one."""
        if name not in self._loaded:
            if name not in self:
                raise InputError(f"prompt {name}: no such file {self._path(name)}")
            file = file_of(name)
            text = self._texts[file] if file in self._texts else read_text(self._path(name))
            self._loaded[name] = parse_template(name.partition(".")[0], text)
        return self._loaded[name]

    def __contains__(self, name: str) -> bool:
        """Whether there is a template of this name."""
        return file_of(name) in self._texts or self._path(name).is_file()

    def _path(self, name: str) -> Path:
        """Return the path of a template: the user's if there is one."""
        file = file_of(name)
        replacement = self._folder / file if self._folder else None
        return replacement if replacement and replacement.is_file() else self._origin(file)


def file_of(name: str) -> str:
    """Return the file of a template in a folder of prompts."""
    stem, _, language = name.partition(".")
    return f"{stem}.{language or 'en'}.md"
