"""`datagen doctor`: what is here to work with, what is wrong with it, and the command to begin with.

It looks at this machine, at local servers, at the models that were named and at the journal. It generates nothing, but
with --try, and changes nothing, but with --mend. What servers and files say is text of others: it is printed escaped.
"""

import asyncio
import os
import shlex
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datagen.commands.installed_plugins import Installed, installed_plugins
from datagen.commands.machine import describe_machine
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.installation import install_line, program, shown
from datagen.libraries import LIBRARIES
from datagen.llm.default import VARIABLE
from datagen.llm.functions import load_function
from datagen.llm.health import Health, journal_health, mend_journal
from datagen.llm.keys import PROVIDERS
from datagen.llm.local.hub import ADAPTER
from datagen.llm.models_file import ModelsFile, read_models_file
from datagen.llm.parameters import Parameters
from datagen.llm.prices import PriceTag, dollars
from datagen.llm.servers import LOCAL_SERVERS, Local, Look, local_servers, look_at
from datagen.llm.spec import Spec, parse_spec
from datagen.plugins import KINDS
from datagen.printing import printable, printable_json
from datagen.text import count_of

ARGUMENTS = ()
SKEW = 60.0
"""Seconds that two clocks may differ: keys and certificates have times."""
MOST_SHOWN = 6
"""Models of a server that are printed."""
EMBEDDING = ("embed", "rerank", "bge-", "whisper", "tts")
"""Parts of the names of models that do not answer prompts."""
NO_MODEL = (
    "No model is named, no server was seen on this machine, and no key is set. Any of these will do: start a local "
    "server, such as Ollama; export the key of a provider (OPENAI_API_KEY); or try the tool with sim, which is no "
    "language model."
)


@dataclass(frozen=True)
class Options:
    """Options of `datagen doctor`."""

    model: list[str] = option([], f"Model to look at; repeatable. [{VARIABLE}, and all of models.toml]")
    send: bool = option(
        False, "Send each model a few tiny requests, to find out what it can do; they may cost something.", long="--try"
    )
    mend: bool = option(False, "Replace a damaged journal by a new one with all answers that can be read.")
    folder: Path = option(Path(), "Folder of the outputs, whose journal is looked at.")
    json: bool = option(False, "Print the findings as JSON.")


@dataclass
class Findings:
    """All that was found out."""

    machine: dict[str, Any]
    servers: list[Local]
    models: list[Look]
    plugins: list[Installed]
    """What packages add."""
    journal: Health | None
    notes: list[str]
    """What was mended."""
    problems: list[str]
    """What is broken of this machine, plug-ins, the journal and models.toml; those of the models stand there."""
    next: str
    """The command to run next."""


def run(options: Options) -> int:
    """Look at everything; return the exit code: 1 if something that is needed is broken."""
    if not options.folder.is_dir():
        raise InputError(f"--folder {options.folder}: no such folder")
    findings = examine(options)
    if options.json:
        print(printable_json(asdict(findings)))
    else:
        print(printable("\n".join(report(findings, options))))
    return 1 if findings.problems or any(look.problems for look in findings.models) else 0


def examine(options: Options) -> Findings:
    """Find out everything."""
    file, problems = models_file()
    machine = describe_machine(options.folder, file)
    servers, models = asyncio.run(ask_servers(models_to_see(options, file), send=options.send))
    journal, notes = journal_health(options.folder), []
    if journal and journal.is_whole is False and options.mend:
        notes.append(mend_journal(options.folder))
        journal = journal_health(options.folder)
    add_remembered(models, journal)
    plugins = list(installed_plugins())
    problems = [*machine.pop("problems"), *problems, *journal_problems(journal, options.folder)]
    problems += [plugin.problem for plugin in plugins if plugin.problem]
    next = next_command(models, servers, machine["keys"])
    return Findings(machine, servers, models, plugins, journal, notes, problems, next)


async def ask_servers(names: Sequence[str], *, send: bool) -> tuple[list[Local], list[Look]]:
    """Look for local servers and at the models, all at the same time."""
    looks = [asyncio.create_task(look) for name in names for look in looks_of(name, send=send)]
    servers = await local_servers()
    return servers, list(await asyncio.gather(*looks))


def models_file() -> tuple[ModelsFile, list[str]]:
    """Read models.toml; return it, and what is wrong with it."""
    try:
        return read_models_file(), []
    except InputError as error:
        return ModelsFile([], {}), [str(error)]


def models_to_see(options: Options, file: ModelsFile) -> list[str]:
    """Return the names of the models to look at, each once."""
    named = [os.environ[VARIABLE]] if os.environ.get(VARIABLE) else file.default
    return list(dict.fromkeys(options.model or [*named, *file.models]))


def add_remembered(models: Sequence[Look], journal: Health | None) -> None:
    """Say of each model what runs remember of it."""
    for look in models:
        place = f"{look.identity} at {look.url}"
        if journal and (facts := journal.facts.get(place)):
            parameters = Parameters(place)
            parameters.recall(facts)
            look.notes += [f"remembered: {words}" for words in parameters.recalled_words()]


def journal_problems(journal: Health | None, folder: Path) -> list[str]:
    """Say what is wrong with the journal, and the way out."""
    if journal is None or journal.is_whole is not False:
        return [f"{journal.path}: {journal.problem}"] if journal and journal.problem else []
    where = "" if folder == Path() else f" --folder {shown(folder)}"
    way_out = f"{program()} doctor --mend{where} makes a new one with all answers that can be read"
    return [f"{journal.path} is damaged ({journal.problem}). {way_out}; the damaged file is kept"]


# Models


def looks_of(name: str, *, send: bool) -> Iterator[Coroutine[Any, Any, Look]]:
    """Yield what finds out about a model, for each of its addresses."""
    try:
        spec = None if name.startswith(("hf:", "sim")) else parse_spec(name)
        if spec and spec.load:
            load_function(spec)
    except InputError as error:
        yield ready(Look(name, problems=[str(error)]))
        return
    if spec is None or not spec.urls:
        yield ready(Look(name, notes=["a Python function"]) if spec and spec.load else look_inside(name))
        return
    for url in spec.urls:
        yield look_outside(name, spec, url, send=send)


async def ready(look: Look) -> Look:
    """Return what is known already."""
    return look


def look_inside(name: str) -> Look:
    """Find out about a model that runs in this process; its weights are not read."""
    look = Look(name)
    kind, _, rest = name.partition(":")
    if kind == "hf":
        missing = [library for library in LIBRARIES if find_spec(library) is None]
        folder = Path(rest).expanduser()
        if missing:
            look.problems.append(f"{', '.join(missing)} not installed. To install: {install_line('train')}")
        if folder.is_dir() and not (folder / "config.json").is_file() and not (folder / ADAPTER).is_file():
            look.problems.append(f"{rest} holds no model: there is no config.json")
        look.notes.append("a folder" if folder.is_dir() else "no folder here: a model of the hub, loaded on first use")
    elif kind == "sim":
        look.notes.append("built in: a rule-based teacher to try the tool with, no language model")
    else:
        look.notes.append("recorded replies")
    return look


async def look_outside(name: str, spec: Spec, url: str, *, send: bool) -> Look:
    """Find out about a model at one address."""
    look = await look_at(spec, name, url)
    look.identity = spec.identity
    if price := await PriceTag(spec).get():
        look.price, look.context = price.as_row(), look.context or price.context
    if send and look.answers and not look.problems:
        from datagen.llm.trial import try_model

        trial = await try_model(spec, url, price)
        look.tried, look.requests = trial.findings, trial.requests
        look.cost = trial.usage.dollars if trial.requests else None
        look.problems += [trial.problem] if trial.problem else []
        look.key = "accepted" if look.tried and look.key.startswith("not checked") else look.key
    if look.listed is False:
        near = f"; the nearest is {look.nearest}" if look.nearest else ""
        look.doubts.append(f"{spec.name} is none of the {count_of(look.others, 'model')} there{near}")
    (look.notes if look.tried else look.problems).extend(look.doubts)
    if look.skew is not None and abs(look.skew) > SKEW:
        way = "ahead of" if look.skew > 0 else "behind"
        late = f"the clock here is {abs(look.skew):,.0f} s {way} that of the server"
        look.problems.append(f"{late}: keys and certificates may be refused. Set the clock")
    return look


# What comes next


def next_command(models: Sequence[Look], servers: Sequence[Local], keys: Sequence[str]) -> str:
    """Return the command to begin with: with a model that was named, else one of a local server."""
    evolve = f"{program()} evolve seeds.jsonl"
    if good := next((look.model for look in models if not look.problems), None):
        return f"{evolve} --model {shlex.quote(good)}"
    for look in models:
        if look.nearest:
            return f"{program()} doctor --model {shlex.quote(f'{look.nearest}@{look.url}')}"
    for server in servers:
        if name := next((name for name in server.models if not is_embedding(name)), None):
            return f"{evolve} --model {shlex.quote(f'{name}@{server.url}')}"
    if "OPENAI_API_KEY" in keys:
        return f"{program()} doctor --model gpt-4o-mini"
    provider = next((provider for provider in PROVIDERS if set(provider.variables) & set(keys)), None)
    if provider:
        return f"{program()} doctor --model NAME@{provider.url}"
    return f"{evolve} --model sim"


def is_embedding(name: str) -> bool:
    """Check that a model does not answer prompts, by its name."""
    return any(part in name.lower() for part in EMBEDDING)


# The report


def report(findings: Findings, options: Options) -> Iterator[str]:
    """Yield the lines to print."""
    yield "This machine"
    yield from indented(machine_lines(findings.machine, findings.journal, options.folder))
    yield "Servers on this machine"
    yield from indented(server_lines(findings.servers))
    if findings.models:
        yield "Models"
        for look in findings.models:
            yield f"  {in_line(look.model)}{f' at {look.url}' if look.url and look.url not in look.model else ''}"
            yield from indented(look_lines(look), 4)
    if findings.plugins:
        yield "Plug-ins"
        yield from indented(map(plugin_line, findings.plugins))
    if options.send and findings.models:
        yield sent_words(findings.models)
    yield from indented(findings.notes, 0)
    yield from (f"problem: {in_line(problem)}" for problem in findings.problems)
    if not (findings.models or findings.servers or findings.machine["keys"]):
        yield NO_MODEL
    yield f"Next: {in_line(findings.next)}"


def plugin_line(plugin: Installed) -> str:
    """Describe a plug-in."""
    where = "" if plugin.problem else f": {KINDS[plugin.kind].replace('NAME', plugin.name)}"
    return f"{plugin.kind} {plugin.name} of {plugin.package}{where or ': cannot be used'}"


def sent_words(models: Sequence[Look]) -> str:
    """Say what --try has sent, and what that costs."""
    requests = sum(look.requests for look in models)
    known = [look.cost for look in models if look.cost is not None]
    missing = any(look.requests and look.cost is None for look in models)
    cost = f", for {dollars(sum(known))}" if known else ""
    unknown = f"{', and more' if known else ', at a price'} that is not known" if missing else ""
    return f"{count_of(requests, 'request')} sent to the models{cost}{unknown}."


def indented(lines: Iterable[str], spaces: int = 2) -> Iterator[str]:
    """Yield lines with spaces before them, each in one line."""
    return (" " * spaces + in_line(line) for line in lines)


def in_line(text: str) -> str:
    """Write a text of others in one line, so that it cannot look like a line of ours."""
    return text.replace("\n", "\\n")


def machine_lines(machine: Mapping[str, Any], journal: Health | None, folder: Path) -> Iterator[str]:
    """Describe what is installed, and the folder."""
    yield f"datagen {machine['datagen']}, Python {machine['python']} ({machine['executable']})"
    for extra, libraries in machine["extras"].items():
        missing = [name for name, number in libraries.items() if number is None]
        if missing:
            yield f"extra {extra}: without {', '.join(missing)}. To install: {machine['install'][extra]}"
        else:
            yield f"extra {extra}: {', '.join(f'{name} {number}' for name, number in libraries.items())}"
    if machine["extras"]["train"]["torch"]:
        yield f"GPU: {', '.join(machine['gpus']) or 'none seen'}"
    yield f"disk: {machine['free_bytes'] / 1e9:,.1f} GB free in {shown(folder)}"
    yield f"keys: {', '.join(machine['keys']) or 'none set'}"
    yield f"journal: {journal_words(journal)}"


def journal_words(journal: Health | None) -> str:
    """Describe a journal."""
    if journal is None:
        return "none yet"
    state = {True: "whole", False: "DAMAGED", None: "not read to its end"}[journal.is_whole]
    count = "answers not counted" if journal.answers is None else count_of(journal.answers, "answer")
    bad = f", {count_of(journal.bad_answers, 'row')} without an answer (asked again)" if journal.bad_answers else ""
    size = f"{journal.bytes / 1e6:,.1f} MB" if journal.bytes >= 1e6 else f"{journal.bytes / 1e3:,.0f} kB"
    return f"{count}, {size}, {state}{bad}"


def server_lines(servers: Sequence[Local]) -> Iterator[str]:
    """Describe the servers that were seen."""
    if not servers:
        yield f"none at the usual ports ({', '.join(map(str, LOCAL_SERVERS))})"
    for server in servers:
        more = f" and {len(server.models) - MOST_SHOWN} more" if len(server.models) > MOST_SHOWN else ""
        models = "asks for a key" if server.needs_key else ", ".join(server.models[:MOST_SHOWN]) or "no model yet"
        yield f"{server.url}  {server.kind}: {models}{more}"


def look_lines(look: Look) -> Iterator[str]:
    """Describe a model."""
    if look.answers:
        name = {True: "the model is listed", False: "the model is not listed", None: "no list of models"}[look.listed]
        yield f"answers{f' ({look.kind})' if look.kind else ''}; {name}; key {look.key}"
    if look.answers and look.listed is not False:
        context = f"{look.context:,} tokens" if look.context else "not said"
        yield f"context: {context}; price: {price_words(look.price)}"
    if look.tried:
        yield from (f"{name}: {finding}" for name, finding in look.tried.items())
    yield from look.notes
    yield from (f"problem: {problem}" for problem in look.problems)


def price_words(price: Mapping[str, Any] | None) -> str:
    """Describe a price."""
    if price is None:
        return "unknown"
    rates = ", ".join(f"${value:g} {kind}" for kind, value in price.items() if kind != "source")
    return f"{rates} per million tokens ({price['source']})"
