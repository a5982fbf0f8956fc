"""The command line: the table of commands; errors as one line and an exit code.

A command's module is imported when the command runs, so that `datagen --help` imports nothing but this file.
"""

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

import datagen
from datagen.errors import DatagenError, InputError

if TYPE_CHECKING:
    from datagen.engine.method import Method

HELP = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),  # self_instruct and --top_p are understood
}


class Command(NamedTuple):
    """One command of the table."""

    module: str
    line: str
    """The line in `datagen --help`."""
    methods: tuple[str, ...] = ()
    """The method classes, as NAME in `module` or as MODULE:NAME. None: a tool, or a group of commands."""
    selector: str = ""
    """The option that selects one of several methods by its variant."""
    kind: str = ""
    """What a package registers to add a variant; empty for the name of the command."""
    example: str = ""
    """A command line to start from."""
    page: str = ""
    """The page that explains the command."""

    @property
    def epilog(self) -> str:
        """The end of `--help`."""
        return f"Example: {self.example}\n\nMore: {self.page}"


COMMANDS = {
    "self-instruct": Command(
        "datagen.generators.self_instruct",
        "Generate new tasks from a few seed tasks.",
        ("SelfInstruct", "SelfInstructAlpaca", "SelfInstructBelle"),
        "mode",
        example="datagen self-instruct seeds.jsonl -n 100 --model qwen3:8b@http://127.0.0.1:11434/v1",
        page="docs/self-instruct.md",
    ),
    "evolve": Command(
        "datagen.generators.evolve",
        "Rewrite prompts into harder and rarer ones, and answer them.",
        ("Evolve", "EvolveCode", "EvolveMath"),
        "style",
        example="datagen evolve seeds.jsonl --rounds 2 --model qwen3:8b@http://127.0.0.1:11434/v1",
        page="docs/evolve.md",
    ),
    "magpie": Command(
        "datagen.generators.magpie",
        "Sample prompts from an aligned local model, and answer them.",
        ("Magpie",),
        example="datagen magpie -n 100 --model hf:Qwen/Qwen3-0.6B",
        page="docs/magpie.md",
    ),
    "constraints": Command(
        "datagen.generators.constraints",
        "Add verifiable constraints to prompts, and generate answers that meet them.",
        ("Constraints",),
        example="datagen constraints prompts.jsonl --model qwen3:8b@http://127.0.0.1:11434/v1",
        page="docs/constraints.md",
    ),
    "backtranslate": Command(
        "datagen.generators.backtranslate",
        "Generate an instruction for each passage of a corpus (instruction backtranslation).",
        ("Backtranslate",),
        example="datagen backtranslate corpus.jsonl --model qwen3:8b@http://127.0.0.1:11434/v1",
        page="docs/backtranslate.md",
    ),
    "respond": Command(
        "datagen.strategies",
        "Answer prompts: directly, by chain of thought, by vote and more.",
        (
            "direct:Direct",
            "cot:ChainOfThought",
            "vote:Vote",
            "rft:RejectionSampling",
            "star:Star",
            "tree.tree_of_thoughts:TreeOfThoughts",
            "mcr:MetaReasoning",
        ),
        "strategy",
        "strategy",
        example="datagen respond prompts.jsonl --strategy cot --model qwen3:8b@http://127.0.0.1:11434/v1",
        page="docs/strategies.md",
    ),
    "improve": Command(
        "datagen.generators.improve",
        "Rewrite answers into better ones, each checked by a judge.",
        ("ImproveEdit", "ImproveCritique", "ImproveRewrite", "ImproveConstitution"),
        "by",
        example="datagen improve rows.jsonl --model qwen3:8b@http://127.0.0.1:11434/v1",
        page="docs/improve.md",
    ),
    "judge": Command(
        "datagen.judges",
        "Score, compare and rank answers.",
        ("score:Score", "compare:Compare", "rank:Rank", "verify:Verify", "human:Human", "difficulty:Difficulty"),
        "by",
        example="datagen judge samples.jsonl --by compare --model gpt-4o-mini",
        page="docs/judging.md",
    ),
    "filter": Command(
        "datagen.select.filter",
        "Filter rows by rules, verifiers, near-duplicates and benchmark overlap.",
        ("Filter",),
        example="datagen filter rows.jsonl --dedup 0.7",
        page="docs/filter.md",
    ),
    "pairs": Command(
        "datagen.select.pairs",
        "Make preference pairs (chosen, rejected) from ranked or verified answers.",
        ("Pairs", "PairsBestRandom", "PairsAll", "PairsVerified", "PairsSpin", "PairsDelta"),
        "by",
        example="datagen pairs samples.judge.jsonl",
        page="docs/pairs.md",
    ),
    "run": Command(
        "datagen.recipes.command",
        "Run a recipe: commands written down in a file, with one budget.",
        example="datagen run wizard --model qwen3:8b@http://127.0.0.1:11434/v1",
        page="docs/recipes.md",
    ),
    "recipes": Command(
        "datagen.recipes.listing",
        "List the recipes that come with the package.",
        example="datagen recipes --show wizard",
        page="docs/recipes.md",
    ),
    "ablate": Command(
        "datagen.recipes.ablation.command",
        "Does a switch help? A recipe with it on and off, on equally many training tokens, over several seeds.",
        example="datagen ablate elimination --switch evolved.rule=all,none",
        page="docs/ablate.md",
    ),
    "review": Command(
        "datagen.commands.review",
        "Rank answers by hand, blind, on a local page.",
        example="datagen review samples.jsonl",
        page="docs/review.md",
    ),
    "convert": Command(
        "datagen.commands.convert",
        "Convert rows to the formats that other tools read.",
        example="datagen convert rows.jsonl --to trl",
        page="docs/commands.md",
    ),
    "gather": Command(
        "datagen.commands.gather",
        "Merge the journals of shards, so that the whole command finds their answers.",
        example="datagen gather shards/*",
        page="docs/scale.md",
    ),
    "trace": Command(
        "datagen.commands.trace",
        "Show the history of a row, from its seed on, with what was rejected on the way.",
        example="datagen trace 5943f1eb",
        page="docs/commands.md",
    ),
    "report": Command(
        "datagen.commands.report",
        "Write one page about outputs and training runs: funnels, cost, figures, sample rows, curves.",
        example="datagen report seeds.evolve.jsonl",
        page="docs/report.md",
    ),
    "pack": Command(
        "datagen.publish.pack",
        "Make outputs a data set for the Hugging Face hub: Parquet, a card, and what it takes to make them again.",
        example="datagen pack seeds.evolve.jsonl --license cc-by-4.0 -o dataset",
        page="docs/publish.md",
    ),
    "push": Command(
        "datagen.publish.push",
        "Upload a data set or a model to the Hugging Face hub, private by default.",
        example="datagen push dataset OWNER/NAME --dry-run",
        page="docs/publish.md",
    ),
    "doctor": Command(
        "datagen.commands.doctor",
        "Look for servers, keys, libraries and faults; print the command to begin with.",
        example="datagen doctor --model qwen3:8b@http://127.0.0.1:11434/v1",
        page="docs/models.md",
    ),
    "agents": Command(
        "datagen.commands.agents",
        "Print the guide for coding agents: from seeds to a trained model, with the check after each step.",
        example="datagen agents > SKILL.md",
        page="docs/agents.md",
    ),
    "train": Command(
        "datagen_train.cli",
        "Train a model: pretrain, sft, reward, classify, dpo, distill, ppo, grpo; sweep, eval, score, merge, chat.",
        example="datagen train sft rows.jsonl --model tiny",
        page="docs/training.md",
    ),
}
"""A new generator, strategy or judge is one entry here. The first of several methods is the default."""


class CommandGroup(TyperGroup):
    """The commands of a table; each is built, and its module imported, when it runs. Errors become one line here.

    A subclass sets `table` and writes `build`.
    """

    table: Mapping[str, Command]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=command.line) for name, command in self.table.items()}
        """Stubs, enough to list the commands and to suggest one."""

    def build(self, name: str, words: Sequence[str] = ()) -> Any:
        """Build the command called `name`; raise InputError if something it needs is not installed.

        Args:
            name: One of the table.
            words: What stands behind it: a plug-in that they select adds options to the command.
        """
        raise NotImplementedError

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name:
            command = self.build(name, () if ctx.resilient_parsing else rest)
            command.epilog = self.table[name].epilog
        return name, command, rest

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the command line and exit; a wrong one ends with one line too."""
        try:
            code = super().main(*arguments, **{**settings, "standalone_mode": False})
        except typer.TyperException as error:
            from datagen.commands.usage import usage_message

            code = 2
            if str(error):  # empty where no arguments were given: the help is printed then
                print_error(usage_message(error))
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; end with one line and an exit code for any error that a user can meet."""
        try:
            check_working_folder()
            return super().invoke(ctx)
        except DatagenError as error:
            message, code = str(error), error.exit_code
        except BrokenPipeError:
            # The reader of our output has left; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            message, code = os_error_message(error), DatagenError.exit_code
        print_error(message)
        raise typer.Exit(code)


def check_working_folder() -> None:
    """Raise InputError if the working folder is gone: no relative name means anything then."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the working folder was removed; change to another one (cd)") from None


def print_error(message: str) -> None:
    """Print the one line for an error."""
    from datagen.printing import printable

    print(f"error: {printable(message)}", file=sys.stderr)


def os_error_message(error: OSError) -> str:
    """One-line message for an OSError about a file; re-raises any other."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        full = f"the disk is full ({error.strerror})"
        return f"{full}: free some space and run the same command again; what was recorded is kept"
    if error.filename is None:
        raise error
    return f"{error.filename}: {error.strerror}"


class Commands(CommandGroup):
    """The commands of `datagen`."""

    table = COMMANDS

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, those of packages last."""
        from datagen.plugins import package_of, registered

        for name, points in registered("generator").items():
            if name not in self.table:
                self.commands[name] = TyperCommand(name, help=f"Added by {package_of(points[0])}.")
        return super().list_commands(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command, which may be a plug-in; one of `datagen train` that is called without its group is named."""
        if args[0] not in self.table and not ctx.resilient_parsing:
            from datagen.commands.plugin_methods import plugin_command

            if command := plugin_command(args[0], self.table):
                return args[0], command, args[1:]
            self.list_commands(ctx)  # a name that is nearly that of a package is suggested, too
        trainers = import_module(COMMANDS["train"].module).Commands.table if args[0] not in self.table else ()
        if args[0] in trainers and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean 'train {args[0]}'?")
        return super().resolve_command(ctx, args)

    def build(self, name: str, words: Sequence[str] = ()) -> Any:
        """Build a command from its methods, or from its module: a group of commands, or a tool."""
        from datagen.commands.flags import argument, fill_options, flags, make_command, make_method_command
        from datagen.plugins import registered

        command = COMMANDS[name]
        if command.methods:
            methods, others = load_methods(name, words), registered(command.kind or name)
            return make_method_command(name, command.line, methods, command.selector, list(others))
        module = import_module(command.module)
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)

        def run(values: dict[str, Any]) -> int:
            arguments = [values[argument[0]] for argument in module.ARGUMENTS]
            return int(module.run(*arguments, fill_options(module.Options, values)))

        parameters = [*(argument(*pair) for pair in module.ARGUMENTS), *flags(module.Options)]
        return make_command(name, command.line, parameters, run)


def load_methods(name: str, words: Sequence[str] = ()) -> "dict[str, type[Method]]":
    """Import the methods of a command; return them by variant ("" where there is only one).

    Args:
        name: The name of the command.
        words: A command line of it; a plug-in that it selects is the last of the methods.
    """
    command = COMMANDS[name]
    methods: dict[str, type[Method]] = {}
    for path in command.methods:
        file, _, class_name = path.rpartition(":")
        method: type[Method] = getattr(import_module(f"{command.module}.{file}".rstrip(".")), class_name)
        methods[method.variant] = method
    if command.selector and words:
        from datagen.commands.plugin_methods import plugin_variants

        methods |= plugin_variants(command.kind or name, command.selector, words, methods)
    return methods


def make_app(commands: type[CommandGroup], help: str, *, is_program: bool = False) -> typer.Typer:
    """Make a group of commands: without one it prints its help; errors are ours to print.

    Args:
        commands: The class of the group.
        help: Its text in `--help`.
        is_program: Whether it is the program itself, which has a version and completes commands in a shell.
    """
    return typer.Typer(
        cls=commands,
        help=help,
        callback=program_options if is_program else lambda: None,
        no_args_is_help=True,
        add_completion=is_program,
        pretty_exceptions_enable=False,
        context_settings=HELP,
    )


def make_group(commands: type[CommandGroup], help: str) -> Any:
    """Make a group of commands that is a command of another group; for the arguments see `make_app`."""
    return typer.main.get_command(make_app(commands, help))


def show_version(requested: bool) -> None:
    if requested:
        print(f"datagen-train {datagen.__version__}")
        raise typer.Exit


def program_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options of `datagen` itself."""


app = make_app(
    Commands,
    "Grow SFT and preference data with a large model; every row and every call is accounted for.\n\n"
    "JSON, CSV, Parquet, Arrow and text are read, JSON lines are written; - is standard input or output. Answers are "
    "recorded beside the output: "
    "a command that is run again after a stop or a crash repeats no paid call.",
    is_program=True,
)


def main() -> None:
    """Run the command line; `datagen.__main__` catches what is caught nowhere else."""
    app()
