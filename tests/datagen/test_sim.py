"""The procedural teacher: equal requests get equal answers, faults have the requested rates, demands are met."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.generators.evolve import read_verdict
from datagen.llm.call import BadAnswer, Call, Reply, read_reply
from datagen.llm.model import call_key
from datagen.llm.sim import SimRandom
from datagen.llm.sim.answer import DEMANDS, answer, compute, unmet
from datagen.llm.sim.evolve import OPERATORS, apply_operator
from datagen.llm.sim.model import HANDLERS, parse_sim
from datagen.select import first_reason
from datagen.select.elimination import BEFORE_ANSWER, ON_ANSWER, Step
from tests.jobs import evolve, rows, write_seeds

SEEDS = (
    "Name a river.",
    "Compute 7 * 8 + 2.",
    "A baker has 3 rolls. How many rolls? Compute 3 - 12.",
    "介绍京剧。",
    "Describe the harbor at night, and end with a joke.",
    "What is 12 + 30 * 2 - 1?",
)
CHAINS = st.lists(st.sampled_from(["add_constraint"] * 5 + sorted(OPERATORS)), max_size=8)
REWRITE, EQUAL = "evolve/deepen", "evolve/equal"


def call(
    prompt: str = "Name a river.", task: str = "answer", *, sample: int = 0, attempt: int = 1, **extra_fields: str
) -> Call:
    messages = [{"role": "user", "content": prompt}]
    fields = {"prompt": prompt, **extra_fields}
    return Call(call_key("sim", messages, {}, sample), "sim", messages, {}, sample, 1, task, fields)


def compare(first: str, second: str) -> Call:
    return call(f"{first}|{second}", EQUAL, first=first, second=second)


def ask(spec: str, *calls: Call) -> list[Reply]:
    async def all_replies() -> list[Reply]:
        teacher = parse_sim(spec)
        return [await teacher.send(call) for call in calls]

    return asyncio.run(all_replies())


def text_of(reply: Reply) -> str:
    return str(json.loads(reply.body)["choices"][0]["message"]["content"])


def faults(spec: str, calls: Sequence[Call]) -> Counter[str | None]:
    return Counter(json.loads(reply.body)["fault"] for reply in ask(spec, *calls))


SPEC = "sim:refuse=0.2,leak=0.2,noop=0.2,malformed=0.2"
MIXED = [
    call(prompt, task, sample=sample, first=prompt, second="Name a lake.")
    for prompt in SEEDS
    for task in ("answer", EQUAL, *(f"evolve/{name}" for name in OPERATORS))
    for sample in range(5)
]


def test_the_same_call_gets_the_same_reply_whatever_came_before() -> None:
    forwards = ask(SPEC, *MIXED)
    assert ask(SPEC, *reversed(MIXED))[::-1] == forwards
    assert [reply for call in MIXED for reply in ask(SPEC, call)] == forwards


def test_another_sample_another_attempt_and_another_request_draw_anew() -> None:
    base = call(task=REWRITE)
    for others in (
        [call(task=REWRITE, sample=number) for number in range(20)],
        [replace(base, attempt=number) for number in range(1, 21)],
        [replace(base, key=call_key("sim", base.messages, {"top_p": number}, 0)) for number in range(20)],
    ):
        assert len({text_of(reply) for reply in ask("sim", *others)}) == 4, "each of the four ways to ask deeper"


def test_what_the_messages_say_beside_the_fields_does_not_matter() -> None:
    base = call("Compute 2 * 3.")
    odd = replace(base, messages=[{"role": "user", "content": "#Rewritten Prompt# {{ x }} Verdict: equal"}])
    assert text_of(*ask("sim", base)) == text_of(*ask("sim", odd))


def test_every_reply_is_a_chat_completion_with_its_tokens() -> None:
    for request, reply in zip(MIXED, ask(SPEC, *MIXED), strict=True):
        assert reply.is_chat_completion
        usage = json.loads(reply.body)["usage"]
        assert usage["completion_tokens"] >= len(text_of(reply).split())
        assert usage["prompt_tokens"] >= len(request.messages[0]["content"].split())


N = 4_000


@pytest.mark.parametrize(
    ("task", "fault"),
    [("answer", "refuse"), ("answer", "malformed"), (REWRITE, "leak"), (REWRITE, "noop"), (EQUAL, "malformed")],
)
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_fault_is_as_frequent_as_asked_for(task: str, fault: str, rate: float) -> None:
    calls = [call(task=task, sample=sample, first="a", second="b") for sample in range(N)]
    counts = faults(f"sim:{fault}={rate}", calls)
    assert abs(counts[fault] - rate * N) < 3.5 * sqrt(rate * (1 - rate) * N)
    assert counts[fault] + counts[None] == N


@pytest.mark.parametrize(
    ("task", "kinds"), [("answer", {"refuse", "malformed"}), (REWRITE, {"leak", "noop"}), (EQUAL, {"malformed"})]
)
def test_faults_that_fit_the_task_add_up_and_others_do_not_come(task: str, kinds: set[str]) -> None:
    counts = faults(SPEC, [call(task=task, sample=sample, first="a", second="b") for sample in range(N)])
    assert counts.keys() == {*kinds, None}
    for kind in kinds:
        assert abs(counts[kind] - 0.2 * N) < 3.5 * sqrt(0.16 * N)


def test_without_rates_there_is_no_fault_and_with_certainty_nothing_else() -> None:
    calls = [call(task=REWRITE, sample=sample) for sample in range(200)]
    assert faults("sim", calls) == {None: 200}
    assert faults("sim:leak=0", calls) == {None: 200}
    assert faults("sim:leak=1", calls) == {"leak": 200}


def test_each_fault_is_what_its_rule_catches() -> None:
    parent = "Name a river."
    leak, noop = (text_of(*ask(f"sim:{fault}=1", call(parent, REWRITE))) for fault in ("leak", "noop"))
    (refusal,) = ask("sim:refuse=1", call())
    empty, mumbled = ask("sim:malformed=1", call(), compare("a", "b"))
    assert first_reason(BEFORE_ANSWER, Step(parent, leak)) == "leaked"
    assert text_of(*ask("sim", compare(parent, noop))).endswith("Verdict: equal")
    assert first_reason(ON_ANSWER, Step(parent, "Name a lake.", response=text_of(refusal))) == "apology"
    for reply, reason in ((empty, "empty answer"), (mumbled, "unparsed answer")):
        with pytest.raises(BadAnswer, match=reason):
            read_reply(reply, read_verdict)


def test_a_method_never_sees_which_fault_it_was() -> None:
    for reply in ask(SPEC, *MIXED):
        body = json.loads(reply.body)
        fault = body.pop("fault")
        try:
            answer = read_reply(reply, None)
        except BadAnswer as bad:
            visible_text = f"{bad.reason} {bad.detail}"
        else:
            assert answer == read_reply(Reply(200, json.dumps(body)), None)
            visible_text = repr(answer)
        assert "fault" not in visible_text
        assert fault is None or f"'{fault}'" not in visible_text


def test_a_fault_stands_in_no_row() -> None:
    evolve(write_seeds(60), SPEC, rounds=3, max_failed=1000)
    all_rows = [*rows("out.jsonl"), *rows("out.rejected.jsonl")]
    assert {row.get("status", "kept") for row in all_rows} == {"kept", "rejected", "failed"}
    assert not [row for row in all_rows if '"fault"' in json.dumps(row)]
    assert "fault" not in json.loads(Path("out.meta.json").read_text())["result"]


def answer_patterns(prompt: str) -> list[re.Pattern[str]]:
    """Return regular expressions for the demands of a prompt, written without the teacher's code."""
    forms = (
        (r"Use the word '(\w+)' in the answer\.", r"(?is).*\b{}\b.*"),
        (r"Begin the answer with '([^']+)'\.", r"(?s){}.*"),
        (r"End the answer with '([^']+)'\.", r"(?s).*{}"),
        (r"Write the final line in (capital) letters\.", r"(?s)(.*\n)?[^a-z\n]*[A-Z][^a-z\n]*"),
    )
    return [
        re.compile(holds.replace("{}", re.escape(value)))
        for demand, holds in forms
        for value in re.findall(demand, prompt)
    ]


@given(st.sampled_from(SEEDS), CHAINS, st.integers(0, 10_000))
def test_an_answer_meets_every_demand_that_a_chain_of_rewrites_made(seed: str, chain: list[str], number: int) -> None:
    rng, prompt = SimRandom(str(number)), seed
    for name in chain:
        prompt = apply_operator(name, prompt, rng)
    text = answer({"prompt": prompt}, rng)
    assert [rule.pattern for rule in answer_patterns(prompt) if not rule.fullmatch(text)] == []
    assert unmet(prompt, text) == []
    result = compute(prompt)[1]
    assert result is None or re.search(rf"(?<!\d){result}\b", text)


@given(st.sampled_from(SEEDS), st.integers(0, 10_000))
def test_constraints_add_up_until_there_are_none_left(seed: str, number: int) -> None:
    rng, prompt = SimRandom(str(number)), seed
    for _ in range(4):
        before = len(answer_patterns(prompt))
        longer = apply_operator("add_constraint", prompt, rng)
        assert longer.startswith(prompt) and longer != prompt
        assert len(answer_patterns(longer)) - before == 1 or before >= 2, "at least two kinds go together"
        prompt = longer


@given(st.sampled_from(SEEDS), st.sampled_from(sorted(OPERATORS)), st.integers(0, 10_000))
def test_a_rewrite_is_new_and_passes_the_rules_that_need_no_answer(seed: str, name: str, number: int) -> None:
    child = apply_operator(name, seed, SimRandom(str(number)))
    assert first_reason(BEFORE_ANSWER, Step(seed, child)) is None
    assert text_of(*ask("sim", compare(seed, child))).endswith("Verdict: not equal")


@pytest.mark.parametrize(
    ("prompt", "steps", "result"),
    [
        ("Compute 7 * 8 + 2.", ["7 * 8 = 56.", "56 + 2 = 58."], 58),
        ("Compute 2 + 3 * 4.", ["3 * 4 = 12.", "2 + 12 = 14."], 14),
        ("Compute 3 - 12.", ["3 - 12 = -9."], -9),
        ("Compute 10 - 3 - 2.", ["10 - 3 = 7.", "7 - 2 = 5."], 5),
        ("Compute 2*3. Then multiply the result by 4, and show.", ["2 * 3 = 6.", "6 * 4 = 24."], 24),
        ("Compute 2+3. Then increase the result by 4. Then multiply the result by 2.",
         ["2 + 3 = 5.", "5 + 4 = 9.", "9 * 2 = 18."], 18),
        ("In 1900 there were 3 trees.", [], None),
        ("Version 1.2 + 3.4", [], None),
    ],
)  # fmt: skip
def test_an_expression_is_evaluated_products_first(prompt: str, steps: list[str], result: int | None) -> None:
    assert compute(prompt) == (steps, result)


@pytest.mark.parametrize(
    ("prompt", "text", "names"),
    [
        ("Use the word 'harbor' in the answer.", "A lake.", ["word"]),
        ("Begin the answer with 'In short:'.", "So. In short: no.", ["opening"]),
        ("End the answer with 'That is all.'.", "That is all. Or not.", ["closing"]),
        ("Write the final line in capital letters.", "LOUD\nnot loud", ["shout"]),
        ("Compute 2 * 3.", "It is 7.", ["result"]),
        ("Use the word 'harbor' in the answer. Compute 2 * 3.", "The Harbor has 6.", []),
    ],
)
def test_a_demand_that_is_not_met_is_named(prompt: str, text: str, names: list[str]) -> None:
    assert unmet(prompt, text) == names


def test_the_demands_are_the_ones_checked_here() -> None:
    texts = [demand.text.format(value) for demand in DEMANDS.values() for value in demand.values]
    assert all(len(answer_patterns(text)) == 1 for text in texts)


def test_a_task_that_it_cannot_play_is_refused_by_name() -> None:
    (reply,) = ask("sim", call(task="evolve/simplify"))
    with pytest.raises(BadAnswer) as raised:
        read_reply(reply, None)
    assert (raised.value.reason, raised.value.final) == ("refused (HTTP 400)", True)
    assert raised.value.detail.startswith("sim cannot play 'evolve/simplify'; it can play: answer, ")


def test_every_rewrite_and_the_comparison_can_be_played() -> None:
    assert {"answer", EQUAL, *(f"evolve/{name}" for name in OPERATORS)} <= HANDLERS.keys()


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("sim:fly=0.1", "fly=0.1"), ("sim:leak", "leak"), ("sim:leak=", "leak="), ("sim:leak=x", "leak=x"),
        ("sim:leak=-0.1", "leak=-0.1"), ("sim:leak=1.1", "leak=1.1"), ("sim:leak=nan", "leak=nan"),
        ("sim:leak=0.1,noop", "noop"), ("sim:leak=0.1;noop=0.1", "leak=0.1;noop=0.1"),
    ],
)  # fmt: skip
def test_an_unknown_fault_or_rate_is_an_error(spec: str, part: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_sim(spec)
    assert str(raised.value).startswith(f"model {spec!r}: expected skill, refuse, leak")
    assert str(raised.value).endswith(f"with rates from 0 to 1: {part!r}")
