"""Recipes: read strictly, checked as a whole, run once, continued after every kind of stop, within one budget."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from datagen.errors import InputError
from datagen.recipes.recipe import bundled, bundled_folder, load_recipe
from datagen.recipes.steps import plan
from tests.jobs import rows, write_seeds
from tests.server import Server, running

RECIPE = """
about: A try.
inputs: {seeds: seeds.jsonl}
models: {model: sim}
settings: {answers: 3}
steps:
  evolved:
    run: evolve
    input: ${seeds}
    rounds: 1
  samples:
    run: respond
    input: evolved.jsonl
    k: ${answers}
  ranked:
    run: judge
    by: compare
    input: samples.jsonl
results:
  rows: {file: evolved.meta.json, value: result.funnel.kept, expect: [1, 8]}
"""

EMPTY: Mapping[str, Any] = MappingProxyType({})


def write_recipe(text: str = RECIPE, name: str = "try.yaml") -> Path:
    write_seeds(8)
    Path(name).write_text(text)
    return Path(name)


def run(*words: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "datagen", "run", *words]
    return subprocess.run(command, capture_output=True, text=True, **settings)


def words_of(changes: Mapping[str, Any] = EMPTY, text: str = RECIPE) -> list[tuple[str, ...]]:
    return [line.words for line in plan(load_recipe(write_recipe(text), changes, Path("try")))]


def outputs(folder: str) -> dict[str, bytes]:
    """Return the rows, kept and rejected, of every output in a folder."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.jsonl"))}


def requests_sent(folder: str, name: str) -> int:
    return int(json.loads(Path(folder, f"{name}.meta.json").read_text())["run"]["requests"])


def test_a_step_is_the_command_that_its_line_says() -> None:
    ran = run(str(write_recipe()))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].split() == ["result", "value", "expected"]
    lines = [line.partition(": ")[2] for line in ran.stderr.splitlines() if line.startswith("step ")]
    by_recipe = outputs("try")
    for path in Path("try").glob("*"):
        if path.is_file():
            path.unlink()
    for line in lines:  # each step alone, as it was printed
        subprocess.run(line, shell=True, check=True, capture_output=True)
    assert outputs("try") == by_recipe
    assert len(by_recipe) == 6


def test_a_recipe_that_is_done_starts_no_command() -> None:
    recipe = str(write_recipe())
    run(recipe)
    before = {path: path.stat().st_mtime_ns for path in Path("try").iterdir()}
    again = run(recipe)
    assert again.stderr.count("done before") == 3 and again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in Path("try").iterdir()} == before


def test_a_change_runs_the_steps_that_it_reaches_and_pays_for_what_is_new() -> None:
    recipe = str(write_recipe())
    run(recipe)
    changed = run(recipe, "--set", "answers=4")
    assert changed.returncode == 0, changed.stderr
    assert "1/3 evolved: done before" in changed.stderr
    assert {len(row["responses"]) for row in rows("try/samples.jsonl")} == {4}
    assert requests_sent("try", "samples") == len(rows("try/evolved.jsonl"))
    assert "expected" not in changed.stdout
    back = run(recipe)
    assert back.returncode == 0 and requests_sent("try", "samples") == 0


def test_a_changed_input_is_seen_whatever_its_time() -> None:
    recipe = str(write_recipe())
    run(recipe)
    stamp = os.stat("seeds.jsonl")
    write_seeds(9)
    os.utime("seeds.jsonl", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "done before" not in run(recipe).stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evolved.round": 2}, "step evolved: `evolve` takes no `round`; did you mean `rounds`?"),
        ({"evolved.rounds": "two"}, "step evolved: datagen evolve: --rounds two: expected a whole number"),
        ({"ranked.by": "compar"}, "step ranked: --by compar: expected one of score, compare"),
        ({"evolved.output": "x/../y"}, ""),
        ({"sample.k": 2}, "--set sample.k: step sample: expected one of evolved, samples, ranked"),
        ({"answer": 2}, "--set answer: expected one of seeds, model, answers. Did you mean answers?"),
        ({"evolved.dry_run": True}, "step evolved: `evolve` takes no `dry_run`"),
        ({"seeds": "none.jsonl"}, "none.jsonl: no such file"),
        ({"max_cost": -1}, "max_cost: expected a number above 0"),
    ],
)
def test_the_whole_recipe_is_checked_before_its_first_step(changes: dict[str, Any], message: str) -> None:
    if not message:
        assert words_of(changes)
        return
    with pytest.raises(InputError) as caught:
        words_of(changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds: 1", "rounds: ${round}", "try.yaml:10: ${...} round: expected one of seeds, model, answers"),
        ("run: respond", "run: repsond", "step samples: run: repsond: expected one of"),
        ("run: respond", "rnu: respond", "try.yaml:11: step samples: expected `run: COMMAND`"),
        ("settings:", "seting:", "try.yaml:5: key seting: expected one of"),
        ("about: A try.", "about: A try.\nabout: B", "try.yaml:3: about stands there twice"),
        ("settings: {answers: 3}", "settings: {answers: 3, seeds: 2}", "seeds is one of `inputs` as well"),
        ("evolved:\n    run: evolve", "../x:\n    run: evolve", "a name has small letters"),
        ("value: result.funnel.kept, ", "", "result rows: expected `file`, `value`"),
        ("    k: ${answers}", "    k: [${answers}", "no YAML"),
        ("    by: compare", "    by: compare\n    output: samples.jsonl", "writes samples.jsonl, as samples"),
        ("run: respond", "run: train", "is a group"),
        ("k: ${answers}", "k: $answers-${", "`$` begins a name"),
    ],
)
def test_a_mistake_in_the_file_has_its_line(old: str, new: str, message: str) -> None:
    assert old in RECIPE
    with pytest.raises(InputError) as caught:
        words_of(text=RECIPE.replace(old, new))
    assert message in str(caught.value)


def test_texts_of_users_are_values_and_nothing_more() -> None:
    """A value is one word of a command, whatever characters it has; a `$` in what a name stands for is left alone."""
    text = RECIPE.replace("settings: {answers: 3}", "settings: {answers: 3, how: '; rm -rf ~ ${answers} $(date)'}")
    text = text.replace("    k: ${answers}", "    k: ${answers}\n    system: ${how}")
    words = words_of(text=text)[1]
    assert words[words.index("--system") + 1] == "; rm -rf ~ ${answers} $(date)"


def test_one_budget_holds_for_all_steps() -> None:
    recipe = str(write_recipe())
    free = run(recipe, "-o", "free")
    assert free.returncode == 0
    needed = sum(json.loads(path.read_text())["result"]["usage"]["calls"] for path in Path("free").glob("*.meta.json"))
    short = run(recipe, "--max-calls", str(needed - 5))
    assert short.returncode == 4
    assert "of --max-calls" in short.stderr.splitlines()[-1]
    used = sum(requests_sent("try", name) for name in ("evolved", "samples"))
    assert used <= needed - 5
    enough = run(recipe, "--max-calls", str(3 * needed))  # each row is begun while the cap covers its three attempts
    assert enough.returncode == 0, enough.stderr
    assert outputs("try") == outputs("free")


def test_steps_are_chosen_by_name() -> None:
    recipe = str(write_recipe())
    assert run(recipe, "--only", "evolved").returncode == 0
    assert list(outputs("try")) == ["evolved.jsonl", "evolved.rejected.jsonl"]
    assert run(recipe, "--from", "samples").returncode == 0
    assert len(outputs("try")) == 6
    wrong = run(recipe, "--from", "sample")
    assert wrong.returncode == 2 and "expected one of evolved, samples, ranked" in wrong.stderr


def test_a_dry_run_counts_the_calls_of_steps_whose_input_is_not_there_yet() -> None:
    recipe = str(write_recipe())
    dry = run(recipe, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    calls = {line.split()[0]: line.split()[1] for line in dry.stdout.splitlines()[1:4]}
    assert calls == {"evolved": "24", "samples": "24", "ranked": "48"}
    assert not Path("try").exists() and not list(Path().glob(".rehearsal*"))


def test_a_step_that_fails_ends_the_recipe_with_its_exit_code() -> None:
    text = RECIPE.replace("    rounds: 1", "    rounds: 1\n    model: none@http://127.0.0.1:9/v1")
    ran = run(str(write_recipe(text)))
    assert ran.returncode == 5
    assert "step 1/3 evolved ended with exit code 5" in ran.stderr
    assert not Path("try/samples.jsonl").exists()


def test_a_report_shows_what_the_steps_before_it_have_written_and_follows_their_changes() -> None:
    recipe = str(write_recipe(RECIPE.replace("results:", "  page: {run: report}\nresults:")))
    Path("try").mkdir()
    Path("try/other.jsonl").write_text('{"prompt": "A stranger."}\n')
    assert run(recipe).returncode == 0
    page = Path("try/page.html").read_text()
    assert all(f"{name}.jsonl" in page for name in ("evolved", "samples", "ranked")) and "other.jsonl" not in page
    assert "4/4 page: done before" in run(recipe).stderr
    changed = run(recipe, "--set", "answers=4")
    assert changed.returncode == 0 and "page: done before" not in changed.stderr
    assert Path("try/page.html").read_text() != page


def test_an_exit_code_that_a_step_accepts_lets_the_recipe_go_on() -> None:
    text = RECIPE.replace("    rounds: 1", "    rounds: 1\n    n: 200\n    model: sim:noop=0.9")
    assert run(str(write_recipe(text))).returncode == 3
    ran = run(str(write_recipe(text.replace("    n: 200", "    n: 200\n    accept: 3"))))
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_files() -> None:
    recipe = str(write_recipe())
    run(recipe, "-o", "whole")
    for delay in (0.2, 0.5, 0.8, 1.1, 1.5, 2.0, 3.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "datagen", "run", recipe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.send_signal(signal.SIGKILL if delay != 0.8 else signal.SIGINT)
        process.wait()
        time.sleep(0.5)  # the step ends with the recipe
    last = run(recipe)
    assert last.returncode == 0, last.stderr
    assert outputs("try") == outputs("whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stacking", "distil-reasoning", "rft-math", "ultrafeedback"])
def test_a_bundled_recipe_has_the_results_that_it_names(name: str) -> None:
    ran = run(name, "-q")
    assert ran.returncode == 0, ran.stderr
    assert "not as expected" not in ran.stdout and len(ran.stdout.splitlines()) > 2, ran.stdout


@pytest.mark.parametrize("name", sorted(bundled()))
def test_every_bundled_recipe_is_whole(name: str) -> None:
    recipe = load_recipe(bundled()[name], {}, Path(name))
    assert plan(recipe)
    assert recipe.about
    written = {line.output for line in plan(recipe)}
    for result in recipe.results:
        assert {result.file.partition("/")[0], result.file.replace(".meta.json", ".jsonl")} & written, result


def test_the_sums_of_the_recipes_are_what_their_script_writes() -> None:
    script = bundled_folder() / "loop/sums.py"
    sizes = "--prompts 2000 --rounds 3 --seeds 100 --gzip".split()
    subprocess.run([sys.executable, script, *sizes], check=True)
    written = sorted(Path().glob("*.gz"))
    assert len(written) == 8
    for path in written:
        assert gzip.decompress(path.read_bytes()) == gzip.decompress((bundled_folder() / "sums" / path).read_bytes())
    parts = [gzip.decompress(Path(f"prompts-{n}.jsonl.gz").read_bytes()) for n in (1, 2, 3)]
    assert gzip.decompress(Path("prompts.jsonl.gz").read_bytes()).startswith(b"".join(parts))


def test_the_tasks_of_the_recipes_are_what_their_script_writes(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text((bundled_folder() / "tasks.py").read_text())
    subprocess.run([sys.executable, tmp_path / "tasks.py"], check=True)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.gz"))
    assert len(written) == 8
    for path in written:
        ours, shipped = (gzip.decompress((folder / path).read_bytes()) for folder in (tmp_path, bundled_folder()))
        assert ours == shipped, path


def test_yaml_of_a_bundled_recipe_can_be_copied_and_run_elsewhere() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "datagen", "recipes", "--show", "wizard"], capture_output=True, text=True, check=True
    )
    assert yaml.safe_load(shown.stdout)["steps"]
    Path("mine.yaml").write_text(shown.stdout)
    assert run("mine.yaml", "--dry-run").returncode == 0


def test_the_steps_know_the_models_of_the_working_folder() -> None:
    with running(Server()) as server:
        table = f'[models.teacher]\nname = "m"\nurl = "{server.url}"\nprice = {{input = 1, output = 2}}\n'
        Path("models.toml").write_text(table)
        recipe = str(write_recipe())
        forecast = run(recipe, "--dry-run", "--model", "teacher")
        assert "no price is known" not in forecast.stdout, forecast.stdout
        ran = run(recipe, "--only", "evolved", "--model", "teacher")
        assert ran.returncode == 0, ran.stderr
        assert server.log
    assert json.loads(Path("try/evolved.meta.json").read_text())["result"]["usage"]["cost"] > 0
    assert Path("try/models.toml").read_text() == table, "the line that is typed alone knows them, too"
