"""The table of commands: a new generator, strategy or judge is one entry in it."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datagen.engine.method import Method


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
