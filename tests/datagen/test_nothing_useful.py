"""A server that answers nothing useful: no command takes that for success, and none loses a candidate."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.records.files import dump_line
from datagen.records.record import Row
from tests.datagen.test_meta import TEXT
from tests.jobs import rows
from tests.judge.rows import answers_by_label
from tests.server import Message, Server, running
from tests.wire import Pieces, http, wire

PROSE = (
    "That is a question on which a lot could be said. There are many sides to it, and each of them has its own "
    "merits, which depend on the circumstances and on the point of view that one takes."
)
REPLIES = {"cannot say": "I cannot say.", "nothing": "", "prose": PROSE}
SUMS: list[Row] = [
    {"prompt": f"What is {n} + 3?", "response": f"It is what {n} and three make together."} for n in range(3)
]
ANSWERS = [{"prompt": row["prompt"], "responses": ["It may be 7, I think.", "It is 12."]} for row in SUMS]
INPUTS: dict[str, list[Row]] = {
    "sums": SUMS,
    "known": [row | {"answer": str(n + 3), "response": f"Answer: {n + 3}"} for n, row in enumerate(SUMS)],
    "puzzles": [{"prompt": f"Play with 4 9 10 {n}."} for n in (11, 12, 13)],
    "samples": ANSWERS,
    "corpus": [{"text": f"# Canal {n}\n\n{TEXT.replace('nine', str(n))}"} for n in range(3)],
    "facts": [{"text": f"Canal {n} is {n} miles long."} for n in range(3)],
    "unjudged": [row | {"scores": [None, None], "ranks": [1, 1]} for row in ANSWERS],
}
COMMANDS = {
    "self-instruct": "self-instruct sums.jsonl -n 5",
    "evolve": "evolve sums.jsonl",
    "evolve code": "evolve sums.jsonl --style code",
    "evolve math": "evolve sums.jsonl --style math",
    "backtranslate": "backtranslate corpus.jsonl",
    "respond --verify": "respond sums.jsonl --verify answer",
    "respond -k": "respond sums.jsonl -k 3 --verify answer",
    "cot": "respond sums.jsonl --strategy cot",
    "vote": "respond sums.jsonl --strategy vote",
    "rft": "respond known.jsonl --strategy rft",
    "star": "respond known.jsonl --strategy star",
    "mcr": "respond sums.jsonl --strategy mcr --corpus facts.jsonl",
    "game24": "respond puzzles.jsonl --strategy tree --budget 30",
    "tree": "respond sums.jsonl --strategy tree --task text --budget 30",
    "only reasoning": "respond sums.jsonl --reasoning only",
    "score": "judge samples.jsonl --by score",
    "compare": "judge samples.jsonl --by compare",
    "rank": "judge samples.jsonl --by rank",
    "check": "judge ranked.jsonl --check",
}
EDITS = {
    f"{style}{' --pairs' * pairs}": f"improve sums.jsonl --by {style}{' --pairs' * pairs}"
    for style in ("edit", "rewrite", "critique", "constitution")
    for pairs in (False, True)
}
INPUTS["ranked"] = [row | {"ranks": [2, 1]} for row in ANSWERS]


@pytest.fixture(autouse=True)
def inputs() -> None:
    for name, lines in INPUTS.items():
        Path(f"{name}.jsonl").write_bytes(b"".join(map(dump_line, lines)))


def run(line: str, output: str = "out.jsonl") -> Result:
    return CliRunner().invoke(app, shlex.split(f"{line} -o {output}"), prog_name="datagen", catch_exceptions=False)


def check(ran: Result) -> Row:
    """Check that a command fell short, says so, and accounts for every candidate; return its funnel."""
    assert ran.exit_code == 3, ran.stderr
    assert "Traceback" not in ran.stderr and "Next: datagen judge" not in ran.stderr
    funnel: Row = json.loads(Path("out.meta.json").read_text())["result"]["funnel"]
    dropped = sum(funnel["rejected"].values()) + sum(funnel["failed"].values())
    assert funnel["asked"] == funnel["kept"] + dropped > 0
    assert (len(rows("out.jsonl")), len(rows("out.rejected.jsonl"))) == (funnel["kept"], dropped)
    words = " ".join(ran.stderr.split())
    for name, counts in funnel["unobtained"].items():
        assert not counts["missing"] or f"{name} {counts['missing']} of {counts['asked']}" in words
    most = [name for name, counts in funnel["unobtained"].items() if 2 * counts["missing"] > counts["asked"]]
    assert not funnel["kept"] or most or sum(funnel["failed"].values()) > funnel["kept"]
    for name in most:
        assert f"Most was not obtained: {name} " in words
    if not funnel["kept"]:
        assert f"No row was kept of {funnel['asked']} candidates: " in words or "failed" in words
    return funnel


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("name", COMMANDS)
def test_useless_answers_are_no_success(name: str, reply: str) -> None:
    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        steps = task in ("tree/plan", "tree/passage") and REPLIES[reply]  # of equal ones, none is evaluated
        return f"{REPLIES[reply]} {sample}" if steps else REPLIES[reply]

    with running(Server(answer=answer)) as server:
        check(run(f"{COMMANDS[name]} --model m@{server.url}"))


@pytest.mark.parametrize("style", EDITS)
def test_edits_that_nobody_can_judge_are_no_success(style: str) -> None:
    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        return PROSE if task.startswith("judge/") else "It is what they make together, and it can be worked out."

    with running(Server(answer=answer)) as server:
        funnel = check(run(f"{EDITS[style]} --model m@{server.url} --allow-self"))
    assert funnel["unobtained"] == {"unjudged edits": {"asked": 3, "missing": 3}}
    assert funnel["kept"] == (0 if "--pairs" in style else 3), "the old answers stay, with the reason"


def test_rows_that_no_verifier_can_check_are_no_success() -> None:
    funnel = check(run("filter sums.jsonl --verify answer"))
    assert funnel["unobtained"] == {"unverified rows": {"asked": 3, "missing": 3}} and funnel["kept"] == 3
    assert check(run("filter sums.jsonl --verify answer --only-verified --overwrite"))["unobtained"] == {}


def test_a_ranking_by_a_verifier_that_knows_nothing_is_no_success() -> None:
    assert check(run("judge samples.jsonl --by verify"))["unobtained"]["unverified answers"]["missing"] == 6


def test_rows_without_scores_give_no_pairs() -> None:
    assert check(run("pairs unjudged.jsonl"))["rejected"] == {"unjudged": 3}


def test_a_check_without_a_verdict_makes_no_judge_known() -> None:
    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        shown = answers_by_label(messages)
        return "I cannot say." if "Tell" in str(messages) else f"Verdict: {max(shown, key=lambda at: len(shown[at]))}"

    Path("labels.jsonl").write_bytes(dump_line(INPUTS["ranked"][0] | {"prompt": "Tell me what 0 + 3 is."}))
    with running(Server(answer=answer)) as server:
        assert run(f"judge labels.jsonl --by compare --check --model m@{server.url}").exit_code == 3
        assert run(f"judge samples.jsonl --by compare --model m@{server.url} --overwrite").exit_code == 0
    ran = run("pairs out.jsonl --weak-judge", "pairs.jsonl")
    assert ran.exit_code == 0 and "not known: none of its verdicts on 1 pair could be read" in ran.stderr


@pytest.mark.parametrize("by", ["score", "compare"])
def test_verdicts_without_probabilities_are_no_success(by: str) -> None:
    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        labels = list(answers_by_label(messages))
        return "\n".join(f"{label} helpful: 3" for label in labels) if by == "score" else f"Verdict: {labels[0]}"

    with running(Server(answer=answer)) as server:
        ran = run(f"judge samples.jsonl --by {by} --logprobs --model m@{server.url}")
    funnel = check(ran)
    replies = funnel["unobtained"]["replies without probabilities"]
    assert replies["missing"] == replies["asked"] > 0
    assert "leave out --logprobs" in " ".join(ran.stderr.split())


@pytest.mark.parametrize("by", ["score", "compare"])
def test_a_server_without_probabilities_is_not_paid_to_the_end(by: str) -> None:
    """It is told after the first replies; and one that sends some of them is asked to the end."""

    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        labels = list(answers_by_label(messages))
        return "\n".join(f"{label} helpful: 3" for label in labels) if by == "score" else f"Verdict: {labels[0]}"

    def some(body: bytes) -> Pieces:
        request = json.loads(body)
        text = answer("", request["messages"], 0, "")
        top = [{"token": letter, "logprob": -0.1} for letter in (text[9:10], text[-1])]
        with_them = "What is 0 " in request["messages"][-1]["content"]
        logprobs = {"content": [{"token": letter, "top_logprobs": top} for letter in text]} if with_them else None
        choice = {"message": {"content": text}, "logprobs": logprobs, "finish_reason": "stop"}
        return [http(200, json.dumps({"choices": [choice]}).encode())]

    rows = [{"prompt": f"What is {n} + 3?", "responses": ["one", "two"]} for n in range(120)]
    Path("many.jsonl").write_bytes(b"".join(map(dump_line, rows)))
    line = f"judge many.jsonl --by {by} --logprobs --concurrency 4"
    with running(Server(answer=answer, latency=0.005)) as server:
        for _ in range(2):
            ran = run(f"{line} --model m@{server.url}")
            assert ran.exit_code == 3 and "Next:" not in ran.stderr, ran.stderr
            words = " ".join(ran.stderr.split())
            assert "Stopped, before more is paid for in vain. Most was not obtained: replies without proba" in words
            assert "leave out --logprobs" in words
            assert 20 <= server.requests <= 40, "the first twenty, and those in flight; the same run pays nothing"
    with wire(some) as server_of_some:
        run(f"{line} --model some@{server_of_some.url} --overwrite")
    assert json.loads(Path("out.meta.json").read_text())["result"]["funnel"]["asked"] == len(rows)


def test_what_is_missing_is_told_below_a_half_and_is_an_exit_code_above() -> None:
    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        shown = answers_by_label(messages)
        number = int(str(messages).partition("What is ")[2].split()[0])
        return f"Verdict: {next(iter(shown))}" if number % 4 >= missing else "I cannot say."

    lines = [{"prompt": f"What is {n} + 3?", "responses": ["one", "two"]} for n in range(4)]
    Path("four.jsonl").write_bytes(b"".join(map(dump_line, lines)))
    for missing, exit_code in ((1, 0), (2, 0), (3, 3)):
        with running(Server(answer=answer)) as server:
            ran = run(f"judge four.jsonl --by compare --model m{missing}@{server.url} --overwrite")
        words = " ".join(ran.stderr.split())
        assert ran.exit_code == exit_code, words
        assert f"unread replies {2 * missing} of 8" in words
        assert ("Most was not obtained" in words) == (exit_code == 3)
    again = run(f"judge four.jsonl --by compare --model m3@{server.url}")
    assert again.exit_code == 3 and "Nothing to do" in again.stderr and "Most was not obtained" in again.stderr


def test_a_judge_that_prefers_the_place_of_an_answer_is_told() -> None:
    def first(model: str, messages: list[Message], sample: int, task: str) -> str:
        return f"Verdict: {next(iter(answers_by_label(messages)))}" if task.startswith("judge/") else "It is twelve."

    def longest(model: str, messages: list[Message], sample: int, task: str) -> str:
        shown = answers_by_label(messages)
        return f"Verdict: {max(shown, key=lambda label: len(shown[label]))}"

    sentence = (
        "Position bias: 100.0 % of the judge's 6 verdicts are for the answer shown first, and both orders agree in"
    )
    with running(Server(answer=first)) as server:
        for line in ("judge samples.jsonl --by compare", "improve sums.jsonl --allow-self --overwrite"):
            ran = run(f"{line} --model m@{server.url} --quiet")
            assert f"{sentence} 0.0 % of 3 comparisons" in " ".join(ran.stderr.split()), line
    with running(Server(answer=longest)) as server:
        assert "Position" not in run(f"judge samples.jsonl --by compare --overwrite --model fair@{server.url}").stderr


@pytest.mark.parametrize(("limit", "exit_code"), [("2", 0), ("1", 3), ("50%", 0), ("25 %", 0), ("20%", 3)])
def test_a_share_of_failures_may_be_the_limit(limit: str, exit_code: int) -> None:
    lines = [{"prompt": f"Write {n} words."} for n in range(8)]
    Path("eight.jsonl").write_bytes(b"".join(map(dump_line, lines)))

    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        return "" if messages[-1]["content"] in ("Write 1 words.", "Write 5 words.") else "Some words."

    with running(Server(answer=answer)) as server:
        ran = run(f"respond eight.jsonl --model m@{server.url} --max-failed '{limit}'")
    assert ran.exit_code == exit_code
    assert "empty answer 2" in ran.stderr
    assert ("More candidates failed than --max-failed" in ran.stderr) == (exit_code == 3)


@pytest.mark.parametrize("limit", ["-1", "ten", "101%", "%", "1.5", "10 % of them", "nan"])
def test_a_limit_of_failures_that_is_none_is_refused(limit: str) -> None:
    ran = run(f"respond sums.jsonl --model sim --max-failed='{limit}'")
    assert ran.exit_code == 2 and "a share such as 10%" in ran.stderr
    assert not Path("out.jsonl").exists()
