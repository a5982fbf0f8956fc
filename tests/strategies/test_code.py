"""Code is sampled, run with the tests of its row, and kept once for each program; requests go on meanwhile."""

import asyncio
import os
from pathlib import Path
from shutil import copy

import pytest

from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.records.record import Record, Row
from datagen.select.pairs import PairsVerified
from datagen.verify import pick_verifier, sandbox, verify_all
from datagen.verify.programs import program_key
from datagen.verify.sandbox import sandbox_problem
from tests.jobs import digest, perform, respond, rows
from tests.verify.test_code import running

needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason=f"no sandbox here: {sandbox_problem()}")
FUNCTIONS = Path(__file__).parents[2] / "examples/functions.jsonl"
PLAIN = "def add(a, b):\n    return a + b"
SAME = [
    "def add( a,b ) :\n\n    return (a+b)  # the sum",
    'def add(x: int, y: int) -> int:\n    """Add x to y."""\n    return x + y',
    '"""A module."""\ndef plus(one, two):\n    return one + two',
]
OTHERS = [
    "def add(a, b):\n    return b + a",
    "def add(a, b):\n    c = a + b\n    return c",
    "add = lambda a, b: a + b",
    "def add(a, b):\n    return sum((a, b))",
    "def add(a, b):\n    return max((a, b))",
    "def add(a, a2):\n    return a + a",
]


def fenced(program: str) -> str:
    return f"So:\n```python\n{program}\n```"


@pytest.mark.parametrize("program", SAME)
def test_a_program_in_other_words_is_the_same(program: str) -> None:
    assert program_key(fenced(program)) == program_key(PLAIN) != ""


def test_another_program_is_another_one() -> None:
    assert len({program_key(fenced(program)) for program in [PLAIN, *OTHERS]}) == 1 + len(OTHERS)
    calls = ["import math as m\nx = m.sqrt(2)", "import math as n\ny = n.sqrt(2)", "import math as m\nx = m.exp(2)"]
    assert [program_key(call) == program_key(calls[0]) for call in calls] == [True, True, False]
    scopes = [f"{name} = 0\ndef f():\n    global {name}\n    {name} = 1" for name in ("count", "number")]
    assert program_key(scopes[0]) == program_key(scopes[1]) != ""


@pytest.mark.parametrize("answer", ["", "I would add them.", fenced("def add(:"), "(" * 999])
def test_what_is_no_program_has_no_key(answer: str) -> None:
    assert program_key(answer) == ""


def solutions(row: Row, *programs: str) -> tuple[dict[str, str], Row]:
    """Run rft over recorded programs; return the outcome of each, and the funnel."""
    Path("replies.jsonl").write_bytes(dump_line({"prompt": row["prompt"], "responses": list(programs)}))
    Path("one.jsonl").write_bytes(dump_line(row))
    outcome = respond(
        Path("one.jsonl"), "replay:replies.jsonl", strategy="rft", k=len(programs), verify=["tests"], overwrite=True
    )
    kept = {row["response"]: "kept" for row in rows("out.jsonl")}
    return kept | {row["reply"]: row["reason"] for row in rows("out.rejected.jsonl")}, outcome.result


@needs_sandbox
def test_each_program_that_passes_the_tests_is_kept_once() -> None:
    sampled = {
        fenced(PLAIN): "same_path",
        fenced(f"{SAME[1]}  # which is what was asked for, and nothing else"): "kept",
        fenced(OTHERS[0]): "kept",
        fenced("def add(a, b):\n    return a - b"): "wrong_answer",
        "I would add the two.": "unverified_answer",
    }
    row = {"prompt": "Write add(a, b).", "tests": ["assert add(1, 2) == 3"]}
    outcomes, result = solutions(row, fenced(OTHERS[0]), *(text for text in sampled if OTHERS[0] not in text))
    assert outcomes == sampled
    assert result["funnel"]["unobtained"] == {"unverified answers": {"asked": 5, "missing": 1}}
    assert result["table"] == {"questions": 1, "chains": 5, "right": 3, "paths": 2}


@needs_sandbox
def test_the_program_of_the_row_stays_in_its_path_unless_it_fails() -> None:
    row = {"prompt": "Write add(a, b).", "tests": ["assert add(1, 2) == 3"]}
    longer = fenced(f"{PLAIN}  # which is what was asked for")
    assert solutions(row | {"response": PLAIN}, longer)[0] == {PLAIN: "kept", longer: "same_path"}
    wrong, other = PLAIN.replace("+", "-"), fenced(OTHERS[0])
    outcomes = solutions(row | {"response": wrong}, PLAIN, other, longer)[0]
    assert outcomes == {wrong: "wrong_answer", PLAIN: "same_path", other: "kept", longer: "kept"}


@needs_sandbox
def test_a_row_without_tests_costs_nothing_and_other_verifiers_are_refused() -> None:
    result = solutions({"prompt": "Write add(a, b)."}, fenced(PLAIN))[1]
    assert result["funnel"]["rejected"] == {"no_tests": 1} and result["usage"]["calls"] == 0
    with pytest.raises(InputError, match="--verify tests is for rows with tests"):
        respond(FUNCTIONS, "sim", "other.jsonl", strategy="rft", verify=["answer"])


@needs_sandbox
def test_the_rows_do_not_depend_on_concurrency_and_are_right() -> None:
    for name, concurrency in (("a", "1"), ("b", "64")):
        model, options = "sim:skill=0.6", {"verify": ["tests"], "concurrency": concurrency, "limit": 3}
        respond(FUNCTIONS, model, f"{name}/out.jsonl", strategy="rft", k=6, **options)
    assert digest("a/out.jsonl") == digest("b/out.jsonl")
    programs = [row["response"] for row in rows("a/out.jsonl")]
    assert programs and not any("+ 1" in program for program in programs)


@needs_sandbox
def test_right_programs_are_paired_with_wrong_ones() -> None:
    respond(FUNCTIONS, "sim:skill=0.5", "samples.jsonl", k=4, verify=["tests"], limit=3)
    perform(PairsVerified, Path("samples.jsonl"), [], "pairs.jsonl", PairsVerified.options_type())
    pairs = rows("pairs.jsonl")
    assert pairs and all("+ 1" in pair["rejected"] and "+ 1" not in pair["chosen"] for pair in pairs)


@needs_sandbox
def test_programs_run_beside_the_event_loop_one_for_each_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Path(copy(sandbox.LAUNCHER, tmp_path))
    monkeypatch.setattr(sandbox, "LAUNCHER", launcher)
    processors = len(os.sched_getaffinity(0))
    record = Record("0", "Wait.", extra={"tests": "assert done"})
    answers = [fenced("import time\ntime.sleep(0.5)\ndone = True")] * (2 * processors + 1)

    async def watch() -> list[int]:
        """Count the processes of the sandbox until all programs have ended; each program has four."""
        verdicts = asyncio.create_task(verify_all(record, answers, [pick_verifier("tests")]))
        seen = []
        while not verdicts.done():
            seen.append(len(running(launcher)))
            await asyncio.sleep(0.02)
        assert await verdicts == [True] * len(answers)
        return seen

    seen = asyncio.run(watch())
    assert len(seen) > 5
    assert 4 <= max(seen) <= 4 * processors
