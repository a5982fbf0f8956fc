"""Plug-ins: generators, strategies, judges, verifiers, rules, rewards and models by FILE.py:NAME, or registered by a
package."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from datagen import plugins
from datagen.commands.main import app
from datagen.errors import InputError
from datagen.llm.spec import parse_spec
from datagen.plugins import find_plugin, load_object
from tests.jobs import rows, write_seeds

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/plugin"
HAIKU, POET, IS_HAIKU = (
    str(EXAMPLE / "datagen_haiku" / name) for name in ("generator.py:Haiku", "poet.py:compose", "checks.py:is_haiku")
)

STRATEGY = '''
from dataclasses import dataclass

from datagen.engine.options import option
from datagen.judges.judge_method import JudgeMethod, ranked_row, ranking_order
from datagen.records.record import plain_prompt
from datagen.strategies.strategy import Answer, Strategy


@dataclass(frozen=True)
class Options:
    k: int = option(1, "Answers for each prompt.", short="-k")
    loud: bool = option(False, "Shout.")


class Shout(Strategy):
    """Answer in capitals."""

    options_type = Options

    def prompt(self, record):
        return plain_prompt(record.prompt)

    async def answer(self, record, llm, prompt, number):
        reply = await self.ask(record, llm, prompt, number)
        return Answer(reply.text.upper() + "!" * self.options.loud, reply)


@dataclass(frozen=True)
class JudgeOptions:
    weight: float = option(1.0, "Points for a character.")


class Longest(JudgeMethod):
    """Rank longer answers above shorter ones."""

    options_type = JudgeOptions
    roles = {}

    async def generate(self, record, llm):
        scores = [self.options.weight * len(response) for response in record.responses]
        order = ranking_order(scores)
        responses = [record.meta["responses"][at] for at in order]
        yield ranked_row(record, self.variant, scores, order, self.row_meta(record, responses=responses))
'''
CHECKS = """
def even(record, response):
    number = int(response.split()[-1])
    return None if number == 0 else number % 2 == 0

def odd_type(record, response):
    return "yes"

def no_seven(record):
    if record.prompt == "raise":
        raise RuntimeError("what is this?")
    if record.prompt == "number":
        return 7
    return "holds  a\\nseven" if "7" in (record.response or "") else None

async def slow(record, response):
    return True
"""


def datagen(*words: str, code: int = 0) -> str:
    """Run the command line in this process; return what it prints."""
    ran = CliRunner().invoke(app, words, prog_name="datagen")
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == code, ran.output
    return ran.output


def write_rows(*pairs: tuple[str, str], path: str = "rows.jsonl") -> str:
    Path(path).write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in pairs))
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs a package: a module, and the names that it registers."""
    site = tmp_path / "site"

    def install(name: str, points: dict[str, str], source: str = CHECKS, module: str = "") -> Path:
        info = site / f"{name}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = "".join(f"{point} = {value}\n" for point, value in points.items())
        (info / "entry_points.txt").write_text(f"[datagen]\n{lines}")
        file = site / f"{module or name.replace('-', '_')}.py"
        file.write_text(source)
        plugins.all_registered.cache_clear()
        return file

    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)
    yield install
    plugins.all_registered.cache_clear()
    for added in set(sys.modules) - before:
        if str(getattr(sys.modules[added], "__file__", "")).startswith(str(site)):
            del sys.modules[added]


# The example, by its files


def test_the_example_runs_by_its_files() -> None:
    write_seeds(3)
    datagen(HAIKU, "seeds.jsonl", "--model", POET, "--season", "spring")
    made_of = rows("seeds.haiku.jsonl")
    assert [row["meta"]["method"] for row in made_of] == ["haiku"] * 3
    assert made_of[0]["meta"]["templates"][0]["name"] == "haiku/write"
    text = datagen("filter", "seeds.haiku.jsonl", "--verify", IS_HAIKU, "-o", "kept.jsonl")
    assert "kept              3" in text
    write_rows(("Moon", "too short"), ("Moon", "明月"), path="bad.jsonl")
    text = datagen("filter", "bad.jsonl", "--verify", IS_HAIKU, "--only-verified", "-o", "none.jsonl", code=3)
    assert [row["reason"] for row in rows("none.rejected.jsonl")] == [
        "wrong:checks.py:is_haiku",
        "unverified:checks.py:is_haiku",
    ]


def test_the_example_is_small() -> None:
    files = list(EXAMPLE.rglob("*.py"))
    assert sum(len(file.read_text().splitlines()) for file in files) <= 100


def test_a_users_prompt_replaces_that_of_a_plug_in() -> None:
    write_seeds(1)
    Path("mine/haiku").mkdir(parents=True)
    Path("mine/haiku/write.en.md").write_text("[user]\n{{ season }} {{ subject }}\n")
    datagen(HAIKU, "seeds.jsonl", "--model", POET, "--prompts", "mine")
    assert rows("seeds.haiku.jsonl")[0]["meta"]["usage"]["prompt_tokens"] < 12
    Path("mine/haiku/other.en.md").write_text("[user]\nx\n")
    assert "overrides no prompt" in datagen(HAIKU, "seeds.jsonl", "--prompts", "mine", code=2)


# Commands and their variants


def test_a_strategy_brings_its_options_and_its_name() -> None:
    Path("mine.py").write_text(STRATEGY)
    Path("model.py").write_text("def echo(messages):\n    return 'Answer: ' + messages[-1]['content']\n")
    write_seeds(2)
    words = ["respond", "seeds.jsonl", "--model", "model.py:echo"]
    assert "--loud" in datagen(*words, "--strategy", "mine.py:Shout", "--help")
    assert "--loud" not in datagen(*words, "--help")
    datagen(*words, "--strategy=mine.py:Shout", "--loud", "-k", "2")
    row = rows("seeds.respond-shout.jsonl")[0]
    assert row["responses"][0].endswith("DESCRIBE THING NUMBER 0 IN A FEW WORDS.!")
    assert row["meta"]["op"] == "shout"
    only = datagen(*words, "--strategy", "cot", "--strategy", "direct", "--loud", code=2)
    assert "no such option --loud" in only

    datagen("judge", "seeds.respond-shout.jsonl", "--by", "mine.py:Longest", "--weight", "2", "-o", "ranked.jsonl")
    ranked = rows("ranked.jsonl")[0]
    assert ranked["scores"] == [2.0 * len(response) for response in ranked["responses"]]
    assert ranked["meta"]["op"] == "longest"


def test_what_a_selector_does_not_know_names_what_it_takes() -> None:
    write_seeds(1)
    text = datagen("respond", "seeds.jsonl", "--strategy", "cott", code=2)
    assert text.strip().endswith("mcr, FILE.py:NAME. Did you mean cot?")


def test_an_edited_plug_in_is_another_command() -> None:
    Path("mine.py").write_text(STRATEGY)
    Path("checks.py").write_text(CHECKS)
    write_seeds(2)
    shout = ("respond", "seeds.jsonl", "--model", "sim", "--strategy", "mine.py:Shout", "-o", "out.jsonl")
    datagen(*shout)
    assert "Nothing to do" in datagen(*shout)
    Path("mine.py").write_text(f"{STRATEGY}\n# edited\n")
    assert "code" in datagen(*shout, code=2)
    write_rows(("a", "is 2"))
    even = ("filter", "rows.jsonl", "--verify", "checks.py:even", "-o", "even.jsonl")
    datagen(*even)
    assert "Nothing to do" in datagen(*even)
    Path("checks.py").write_text(f"{CHECKS}\n# edited\n")
    assert "code of checks.py:even" in datagen(*even, code=2)


BAD_METHODS = [
    ("def Mine(): ...", "is a value of type function, and no subclass of datagen.engine.method.Method"),
    ("class Mine: ...", "is the class Mine, and no subclass"),
    ("class Mine(Method): ...", "its class has no `name`"),
    ("class Mine(Method):\n    name = 'mine'", "its class has no `options_type`"),
    ("class Mine(Method):\n    name = 'mine'\n    options_type = int", "is the class int, not a dataclass"),
    ("class Mine(Method):\n    name = 'mine'\n    options_type = Options", "its class has no `generate`"),
    ("class Mine(Base):\n    name = 'evolve'", "names it 'evolve', which is that of a command"),
    ("class Mine(Base):\n    name = '../x'", "names it '../x', which may have small letters"),
    ("class Mine(Base):\n    name = 'mine'\n    options_type = Plain", "`x` is not made by `option(DEFAULT, HELP)`"),
    ("class Mine(Base):\n    name = 'mine'\n    options_type = Taken", "`limit` has the name of an option of every"),
]
HEAD = """
from dataclasses import dataclass
from datagen.engine.method import Method
from datagen.engine.options import option

@dataclass(frozen=True)
class Options: ...

@dataclass(frozen=True)
class Plain:
    x: int = 3

@dataclass(frozen=True)
class Taken:
    limit: int = option(3, "Mine.")

class Base(Method):
    options_type = Options
    async def generate(self, record, llm):
        yield {}[record.prompt]

"""


@pytest.mark.parametrize(("text", "problem"), BAD_METHODS, ids=[problem for _, problem in BAD_METHODS])
def test_what_is_no_generator_is_refused_in_one_line(text: str, problem: str) -> None:
    Path("mine.py").write_text(HEAD + text)
    write_seeds(1)
    output = datagen("mine.py:Mine", "seeds.jsonl", code=2)
    assert problem in output
    assert output.count("\n") == 1


def test_an_exception_of_a_generator_names_its_line() -> None:
    Path("mine.py").write_text(f"{HEAD}class Mine(Base):\n    name = 'mine'\n")
    write_seeds(1)
    ran = subprocess.run(
        [sys.executable, "-m", "datagen", "mine.py:Mine", "seeds.jsonl"], capture_output=True, text=True
    )
    assert ran.returncode == 1
    line = ran.stderr.splitlines()[-1]
    assert "mine.py:20: KeyError" in line and "This is code of a plug-in" in line
    assert not list(Path().glob("datagen-error-*"))


def test_completion_does_not_run_code() -> None:
    Path("mine.py").write_text("raise SystemExit('was run')")
    words = {
        "_DATAGEN_COMPLETE": "complete_bash",
        "COMP_WORDS": "datagen respond --strategy mine.py:X --",
        "COMP_CWORD": "4",
    }
    command = [str(Path(sys.executable).with_name("datagen"))]
    ran = subprocess.run(command, env=os.environ | words, capture_output=True, text=True)
    assert "--model" in ran.stdout
    assert "was run" not in ran.stdout + ran.stderr


# Verifiers and rules


def test_a_verifier_that_raises_does_not_know_and_is_named() -> None:
    Path("checks.py").write_text(CHECKS)
    write_rows(("a", "it is 2"), ("b", "it is 3"), ("c", "it is 0"), ("d", "it is many"))
    text = datagen("filter", "rows.jsonl", "--verify", "checks.py:even", "-o", "kept.jsonl")
    assert [row["prompt"] for row in rows("kept.jsonl")] == ["a", "c", "d"]
    assert rows("kept.rejected.jsonl")[0]["reason"] == "wrong:checks.py:even"
    assert "unverified rows   2  of 4" in text
    assert f"'many' at {Path('checks.py').resolve()}:3 (1 time)" in text
    text = datagen("filter", "rows.jsonl", "--verify", "checks.py:odd_type", "-o", "odd.jsonl", code=3)
    assert "TypeError: returned a value of type str; a verdict is True, False or None" in text


def test_a_verifier_judges_and_checks_answers() -> None:
    Path("checks.py").write_text(CHECKS)
    Path("model.py").write_text("def count(messages):\n    return f'It is {len(messages[-1][\"content\"])}'\n")
    Path("p.jsonl").write_text('{"prompt": "ab"}\n{"prompt": "abc"}\n')
    words = ("p.jsonl", "--model", "model.py:count", "--verify", "checks.py:even")
    datagen("respond", *words, "-o", "one.jsonl")
    assert [row["prompt"] for row in rows("one.jsonl")] == ["ab"]
    datagen("respond", *words, "-k", "2", "-o", "two.jsonl")
    datagen("judge", "two.jsonl", "--by", "verify", "--verify", "checks.py:even", "-o", "judged.jsonl")
    assert [row["scores"] for row in rows("judged.jsonl")] == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("checks.py:slow", "verifier checks.py:slow: is async; a verifier is a plain function"),
        ("checks.py:evn", "has no evn. Did you mean even?"),
        ("verify.py:even", "verify.py: cannot be read: No such file or directory"),
        ("evn", "expected one of answer, constraints, equations, game24, tests, FILE.py:NAME"),
    ],
)
def test_what_is_no_verifier_is_refused(name: str, problem: str) -> None:
    Path("checks.py").write_text(CHECKS)
    write_rows(("a", "it is 2"))
    assert problem in datagen("filter", "rows.jsonl", "--verify", name, code=2)


def test_a_rule_drops_rows_with_its_own_words() -> None:
    Path("checks.py").write_text(CHECKS)
    write_rows(("a", "It is 7, that is sure."), ("b", "It is 8, that is sure."), ("raise", "x"), ("number", "y"))
    text = datagen("filter", "rows.jsonl", "--rule", "checks.py:no_seven", "-o", "kept.jsonl", code=3)
    assert [row["prompt"] for row in rows("kept.jsonl")] == ["b"]
    dropped = [(row["status"], row["reason"]) for row in rows("kept.rejected.jsonl")]
    assert dropped == [("rejected", "rule:holds a seven"), ("failed", "rule error"), ("failed", "rule error")]
    assert "RuntimeError: what is this?" in text and "a rule returns the reason to drop a row" in text
    assert "A rule of --rule raised an exception" in text
    text = datagen("filter", "rows.jsonl", "--limit", "1", "--rule", "checks.py:no_seven", "-o", "none.jsonl", code=3)
    assert "A rule FILE.py:NAME of --rule, or of a package, dropped the row" in text


def test_a_rule_sees_documents_and_other_rules_still_apply_where_they_are_named() -> None:
    Path("checks.py").write_text("def short(record):\n    return None if len(record.answers[0]) > 3 else 'short'\n")
    Path("docs.jsonl").write_text('{"text": "abc"}\n{"text": "abcdef"}\n{"text": "..."}\n')
    words = ("filter", "docs.jsonl", "--rule", "checks.py:short", "--rule", "empty", "-o", "kept.jsonl")
    datagen(*words)
    assert [row["reason"] for row in rows("kept.rejected.jsonl")] == ["rule:short", "empty"]


def test_a_reward_may_be_a_verifier_of_a_file() -> None:
    pytest.importorskip("torch")
    from datagen.records.record import Record
    from datagen_train.rewards.specs import Rewards, identity

    Path("checks.py").write_text(CHECKS)
    specs = ["2*verifier:checks.py:even"]
    scored = Rewards(specs).score([Record("0", "p", None)] * 3, ["is 2", "is 3", "is"], [[], [], []])
    assert scored.total == [2.0, 0.0, None]
    before = identity(specs)
    Path("checks.py").write_text(f"{CHECKS}\n")
    assert identity(specs) != before


# Files


BROKEN = [
    ("1 / 0\n", "1: cannot be loaded: ZeroDivisionError: division by zero"),
    ("\nimport sys\nsys.exit(3)\n", "3: cannot be loaded: SystemExit: 3"),
    ("import no_such_library\n", "1: cannot be loaded: ModuleNotFoundError: No module named 'no_such_library'"),
    ("x = 1\ndef f(:\n", "2: cannot be loaded: SyntaxError: invalid syntax"),
    ("\0", "cannot be loaded: "),
    ("def answers(messages): ...\n", "has no answer. Did you mean answers?"),
    ("x = 3\n", "has no answer. It has no function and no class."),
]


@pytest.mark.parametrize(("text", "problem"), BROKEN, ids=[repr(text) for text, _ in BROKEN])
def test_a_file_that_cannot_be_used_gives_one_line(text: str, problem: str) -> None:
    Path("mine.py").write_text(text)
    write_seeds(1)
    for words in (["respond", "seeds.jsonl", "--model", "mine.py:answer"], ["mine.py:answer", "seeds.jsonl"]):
        output = datagen(*words, code=2)
        assert problem in output
        assert output.startswith("error: ") and output.count("\n") == 1, output
    assert "name the function in it, as --model mine.py:NAME" in datagen(
        "respond", "seeds.jsonl", "--model", "mine.py", code=2
    )


@pytest.mark.parametrize("path", ["with space/my model.py", "模型/回答.py", "a:b/c:d.py", "./-x.py", "x.py:y.py"])
def test_a_file_may_have_any_name(path: str) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("def 回答(messages):\n    return 'yes, indeed'\n")
    write_seeds(1)
    datagen("respond", "seeds.jsonl", "--model", f"{path}:回答", "-o", "out.jsonl")
    assert rows("out.jsonl")[0]["meta"]["model"].startswith(f"{Path(path).name}:回答/")


def test_a_folder_with_modules_of_known_names_hides_none_and_neighbours_are_found() -> None:
    for name in ("datagen", "json", "typing", "torch"):
        Path(f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    Path("neighbour_of_mine.py").write_text("WORD = 'near'\n")
    Path("mine.py").write_text(
        "import json\nfrom datagen.records.record import Record\nfrom neighbour_of_mine import WORD\n"
        "def answer(messages):\n    return f'It is {WORD}, of course.'\n"
    )
    write_seeds(1)
    program = str(Path(sys.executable).with_name("datagen"))
    command = [program, "respond", "seeds.jsonl", "--model", "mine.py:answer", "-o", "-"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "It is near, of course." in ran.stdout
    path = list(sys.path)
    load_object("mine.py:answer")
    assert sys.path == path, "the folder is searched while the file is loaded, and not afterwards"


def test_one_version_of_a_file_is_one_module() -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += "@dataclass\nclass Point:\n    x: int = 1\n"
    Path("mine.py").write_text(text)
    Path("sub").mkdir()
    first, again = load_object("mine.py:Point"), load_object("sub/../mine.py:Point")
    assert first is again
    assert pickle.loads(pickle.dumps(first(3))) == first(3)
    Path("mine.py").write_text(f"{text}\n# edited\n")
    assert load_object("mine.py:Point") is not first


def test_only_a_reference_is_loaded() -> None:
    Path("mine.py").write_text("raise SystemExit('was run')")
    assert find_plugin("verifier", "answer") is None
    assert parse_spec("mine.py:answer").identity.startswith("mine.py:answer/")
    for text in ("mine.py", "mine.py:", "mine.py:a.b", "mine.py:a b", "mine:answer"):
        with pytest.raises(InputError, match=r"expected FILE.py:NAME"):
            load_object(text)


def test_a_models_file_names_no_code() -> None:
    Path("mine.py").write_text("raise SystemExit('was run')")
    Path("models.toml").write_text('default = "mine.py:answer"\n')
    write_seeds(1)
    text = datagen("respond", "seeds.jsonl", code=2)
    assert "models.toml: default: mine.py:answer is code" in text


@pytest.mark.slow
def test_a_recipe_sees_files_beside_it() -> None:
    Path("r").mkdir()
    Path("r/model.py").write_text("def count(messages):\n    return f'It is {len(messages[-1][\"content\"])}'\n")
    Path("r/checks.py").write_text(CHECKS)
    Path("r/mine.py").write_text(STRATEGY)
    Path("r/p.jsonl").write_text('{"prompt": "ab"}\n{"prompt": "abc"}\n')
    Path("r/mine.yaml").write_text(
        f"""
inputs: {{prompts: p.jsonl}}
models: {{model: "model.py:count"}}
steps:
  poems: {{run: "{HAIKU}", input: "${{prompts}}", season: spring}}
  even: {{run: filter, input: poems.jsonl, verify: "checks.py:even", rule: none}}
  unused: {{run: respond, input: poems.jsonl, strategy: "mine.py:Shout", loud: true}}
"""
    )
    command = [sys.executable, "-m", "datagen", "run", "r/mine.yaml", "-o", "out"]
    for step in ("poems", "even"):
        ran = subprocess.run([*command, "--only", step], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert {row["response"] for row in rows("out/poems.jsonl")} == {"It is 86", "It is 87"}
    assert [row["response"] for row in rows("out/even.jsonl")] == ["It is 86"]
    assert str(Path().resolve()) not in Path("out/even.rejected.jsonl").read_text()
    assert "done before" in subprocess.run([*command, "--only", "even"], capture_output=True, text=True).stderr
    Path("r/checks.py").write_text(f"{CHECKS}\n# edited\n")
    assert "done before" not in subprocess.run([*command, "--only", "even"], capture_output=True, text=True).stderr


# Packages


def test_registered_names_are_taken_everywhere(package: Callable[..., Path]) -> None:
    source = STRATEGY + CHECKS + "\ndef echo(messages):\n    return 'It is ' + messages[-1]['content']\n"
    points = {
        "strategy.shout": "loud_things:Shout",
        "judge.longest": "loud_things:Longest",
        "verifier.even": "loud_things:even",
        "filter.seven": "loud_things:no_seven",
        "model.echo": "loud_things:echo",
    }
    file = package("loud-things", points, source)
    Path("p.jsonl").write_text('{"prompt": "2"}\n{"prompt": "3"}\n{"prompt": "74"}\n')
    datagen("respond", "p.jsonl", "--strategy", "shout", "--model", "echo")
    assert "shout" in datagen("respond", "--help").replace("\n", " ")
    row = rows("p.respond-shout.jsonl")[0]
    assert row["response"] == "IT IS 2"
    assert row["meta"]["model"].startswith("echo/loud-things 1.5/")
    words = ("filter", "p.respond-shout.jsonl", "--verify", "even", "--rule", "seven", "-o", "kept.jsonl")
    datagen(*words)
    assert [row["prompt"] for row in rows("kept.jsonl")] == ["2"]
    reasons = [row["reason"] for row in rows("kept.rejected.jsonl")]
    assert reasons == ["wrong:even", "rule:holds a seven"]
    file.write_text(f"{source}\n# edited\n")
    assert "code of even" in datagen(*words, code=2)


def test_a_registered_generator_is_a_command_in_the_help(package: Callable[..., Path]) -> None:
    source = (EXAMPLE / "datagen_haiku/generator.py").read_text().replace("templates =", "_ =")
    package("poems", {"generator.poem": "poems:Haiku", "generator.evolve": "poems:Haiku"}, source)
    listing = datagen("--help")
    assert "Added by poems 1.5." in listing
    assert listing.count(" evolve ") == 1
    assert "--season" in datagen("poem", "--help")
    assert "--season" not in datagen("evolve", "--help")
    assert "Did you mean" in datagen("poems", "x.jsonl", code=2)


def test_two_packages_with_one_name_are_named(package: Callable[..., Path]) -> None:
    package("first", {"verifier.even": "first:even"})
    package("second", {"verifier.even": "second:even"})
    write_rows(("a", "is 2"))
    text = datagen("filter", "rows.jsonl", "--verify", "even", code=2)
    assert "verifier even: is registered by first 1.5 and second 1.5; uninstall one of them" in text


def test_doctor_lists_plug_ins_and_what_is_wrong_with_them(package: Callable[..., Path]) -> None:
    package("good", {"verifier.even": "good:even", "verifier.answer": "good:even", "colour.red": "good:even"})
    package("broken", {"verifier.gone": "broken:even", "model.gone": "broken:nothing"}, "raise OSError('no disk')\n")
    package("lost", {"filter.lost": "no_such_module:f", "model.slow": "lost:even", "strategy.odd": "lost:even"})
    text = datagen("doctor", code=1)
    assert "verifier even of good 1.5: --verify even" in text
    for problem in (
        "verifier answer: is never used, since datagen has one of this name",
        "colour.red: a name begins with its kind, one of generator, strategy",
        "broken.py:1: cannot be loaded: OSError: no disk",
        "lost 1.5: no_such_module:f: no_such_module: cannot be loaded: ModuleNotFoundError",
        "model slow: its parameter response has no default",
        "strategy odd: is a value of type function, and no subclass of",
    ):
        assert problem in text
    assert "Traceback" not in text
    assert {plugin["name"] for plugin in json.loads(datagen("doctor", "--json", code=1))["plugins"]} >= {"even", "gone"}


@pytest.mark.slow
def test_the_example_is_installed_and_found_by_its_names() -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", "site", str(EXAMPLE)]
    subprocess.run(install, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    site = str(Path("site").resolve())
    Path("empty").mkdir()
    Path("empty/p.jsonl").write_text('{"prompt": "the moon"}\n{"prompt": "a frog"}\n')

    def run(*words: str) -> Any:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH")]))}
        command = [sys.executable, "-P", "-m", "datagen", *words]
        ran = subprocess.run(command, cwd="empty", env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran

    assert "Added by datagen-haiku 0.1.0." in run("--help").stdout
    run("haiku", "p.jsonl", "--model", "poet")
    run("filter", "p.haiku.jsonl", "--verify", "haiku", "--only-verified", "-o", "kept.jsonl")
    assert [row["prompt"] for row in rows("empty/kept.jsonl")] == ["the moon", "a frog"]
    assert rows("empty/kept.jsonl")[0]["meta"]["model"].startswith("poet/datagen-haiku 0.1.0/")
