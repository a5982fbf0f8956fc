"""The rules of elimination over 342 hand-written cases, and at their edges."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.elimination import LURES, RULES, Case, load_cases, read_reply_verdict, real_answers, rule_table, score
from datagen.select import Rule, first_reason
from datagen.select.elimination import (
    APOLOGY_WORDS,
    BEFORE_ANSWER,
    MAX_GROWTH,
    ON_ANSWER,
    ON_VERDICT,
    STOP_WORDS,
    Step,
    answered,
    apology,
    leaked,
    no_gain,
    overgrown,
    refused,
    stop_words,
    unchanged,
)
from tests.conftest import REAL_DATA

CASES = load_cases()
NAMES = [rule.__name__ for rule in RULES]
NEW = "In which month is it best to prune an old plum tree that has not borne for three years?"
words = st.lists(st.sampled_from(["river", "tree", "stone", "lantern"])).map(" ".join)


def answer_step(response: str, child: str = NEW) -> Step:
    return Step("Name a tree.", child, response=response)


def rewrite_step(child: str, parent: str = "Name a tree.") -> Step:
    return Step(parent, child)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_is_dropped_by_the_rule_that_it_was_written_for(case: Case) -> None:
    assert first_reason(RULES, case.step) == case.rule


@pytest.mark.parametrize("case", [case for case in CASES if case.says], ids=lambda case: case.id)
def test_a_judge_is_understood_as_it_was_meant(case: Case) -> None:
    assert case.step.verdict == case.says


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_has_an_error_on_the_cases(name: str) -> None:
    result = score(name, CASES)
    assert (result.precision, result.recall) == (1.0, 1.0)
    assert result.should >= 10
    assert result.hard_negatives >= 5, "a careless rule would have stumbled here"


def test_the_cases_are_hard() -> None:
    must_pass = [case for case in CASES if case.rule is None]
    assert len(CASES) == len({case.id for case in CASES}) >= 300
    assert sum(case.hard for case in must_pass) >= 60
    assert sum(any(lure(case) for lure in LURES.values()) for case in must_pass) >= 60
    assert Counter(case.rule for case in CASES).keys() == {*NAMES, None}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule is not no_gain], ids=lambda rule: rule.__name__)
def test_only_no_gain_needs_a_model(rule: Rule[Step]) -> None:
    """Without a verdict, the cases of the other rules are dropped as well."""
    steps = [case.step for case in CASES if case.rule == rule.__name__]
    assert {first_reason(RULES, replace(step, verdict="")) for step in steps} == {rule.__name__}


def test_the_rules_run_in_the_order_of_what_they_cost() -> None:
    assert (unchanged, leaked, refused, answered, overgrown) == BEFORE_ANSWER
    assert (no_gain,) == ON_VERDICT
    assert (apology, stop_words) == ON_ANSWER
    both = Step("Name a tree.", "I'm sorry, I can't rewrite the given prompt.")
    assert (leaked(both), refused(both), first_reason(RULES, both)) == ("leaked", "refused", "leaked")


@pytest.mark.parametrize(("number", "reason"), [(79, "apology"), (80, None), (81, None)])
@pytest.mark.parametrize("filler", ["word", "词"])
def test_sorry_in_fewer_than_eighty_words_is_an_apology(number: int, reason: str | None, filler: str) -> None:
    assert APOLOGY_WORDS == 80, "WizardLM, section 3.3"
    assert apology(answer_step("Sorry, " + f"{filler} " * (number - 1))) == reason


@pytest.mark.parametrize(
    ("response", "child", "reason"),
    [
        ("SORRY!", NEW, "apology"),
        ("抱歉，我不能回答。", NEW, "apology"),
        ("非常对不起。", NEW, "apology"),
        ("He drove a lorry to Norway.", NEW, None),
        ("In sorrow he left.", NEW, None),
        ("Sorry again for the goat.", "Write an apology for a goat that ate a hedge.", None),
        ("Dear Ann, I am sorry.", "How does one say sorry to a neighbour?", None),
        ("对不起，我迟到了。", "写一句道歉的话。", None),
    ],
)
def test_sorry_is_a_word_of_the_answer_and_not_of_the_question(response: str, child: str, reason: str | None) -> None:
    assert apology(answer_step(response, child)) == reason


@pytest.mark.parametrize(
    "response",
    ["", " \n", "...", "?!", "…—«»", "。，！", "** **", "---\n---", "'", "’", "The", "and so on", "It's what it is.",
     "的，了，和，是。",
     "You too!", "Don’t.", "=", "$ %"],
)  # fmt: skip
def test_punctuation_and_stop_words_say_nothing(response: str) -> None:
    assert stop_words(answer_step(response)) == "stop_words"


@pytest.mark.parametrize(
    "response",
    ["Yes.", "No", "not", "none", "All.", "Both", "B", "(a)", "i", "'b'", "7", "0", "√", "3 - 3", "€", "°",
     "好", "Ra8#", "So long.", "x", "it's raining"],
)  # fmt: skip
def test_a_word_a_number_or_a_choice_says_something(response: str) -> None:
    assert stop_words(answer_step(response)) is None


@given(st.lists(st.sampled_from([*sorted(STOP_WORDS), "?", "...", "—", "，"]), min_size=2, max_size=9))
def test_any_stop_words_in_any_order_say_nothing_until_one_word_does(words: list[str]) -> None:
    text = " ".join(["the", *words])
    assert stop_words(answer_step(text)) == "stop_words"
    assert stop_words(answer_step(f"{text} river")) is None


@pytest.mark.parametrize(
    "child",
    [
        "Name a tree that bears in the given prompt.", "GIVEN-PROMPT", "#Rewritten Prompt#: Name a plum.",
        "Created Prompt: x", "{given_prompt}", "请参考given prompt回答。", "#New Prompt#\nName a plum.",
        "New prompt: Name a plum.", "**New Prompt**: x", "<new_prompt>x</new_prompt>", "New prompt：写一首诗",
    ],
)  # fmt: skip
def test_words_of_the_template_are_a_leak(child: str) -> None:
    assert leaked(rewrite_step(child)) == "leaked"


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ("What is a given prompt?", "What is a given prompt, and who gives it?"),
        ("Explain the GIVEN PROMPT.", "Explain the given prompt in ten words."),
        ("New prompt: x", "New prompt: x and y"),
        ("Name a tree.", "Name a tree for which he was forgiven promptly."),
        ("Name a tree.", "Name the tree that a new prompt in the theatre would help an actor to remember."),
        ("Which prompts would suit?", "Which of the given prompts would suit?"),
    ],
)
def test_what_the_parent_has_or_what_only_looks_alike_is_no_leak(parent: str, child: str) -> None:
    assert leaked(rewrite_step(child, parent)) is None


def test_another_phrase_than_the_parents_is_a_leak_all_the_same() -> None:
    assert leaked(rewrite_step("Explain the rewritten prompt.", "Explain the given prompt.")) == "leaked"


@pytest.mark.parametrize(("added", "reason"), [(119, None), (120, None), (121, "overgrown")])
@pytest.mark.parametrize("word", ["word ", "词"])
def test_a_rewrite_may_add_a_hundred_and_twenty_words(added: int, reason: str | None, word: str) -> None:
    assert MAX_GROWTH == 120
    assert overgrown(rewrite_step("Name a tree. " + word * added)) == reason


def test_the_bound_on_growth_can_be_set_and_shrinking_is_fine() -> None:
    assert overgrown(Step("Name a tree.", "Name a tree or two.", max_growth=1)) == "overgrown"
    assert overgrown(Step("Name a tree.", "Name a tree now.", max_growth=1)) is None
    assert overgrown(Step("word " * 500, "One.", max_growth=1)) is None


@pytest.mark.parametrize(
    ("parent", "child", "reason"),
    [
        ("Name a tree.", "name  a\nTREE!", "unchanged"),
        ("介绍京剧。", "介绍京剧！", "unchanged"),
        ("Name a tree.", "Name a trees.", None),
        ("What is 3 * 4?", "What is 3 / 4?", None),
        ("What is 3 - 4?", "What is 3 + 4?", None),
        ("What is (1) * (2)?", "What is (1) / (2)?", None),
        ("What is 3 * 4?", "what is 3*4", "unchanged"),
        ("Name a well-known tree.", "Name a well known tree.", "unchanged"),
    ],
)
def test_case_spaces_and_punctuation_change_nothing_and_an_operator_does(
    parent: str, child: str, reason: str | None
) -> None:
    assert unchanged(rewrite_step(child, parent)) == reason


@given(words, words)
def test_a_rewrite_is_unchanged_only_if_its_letters_are(parent: str, child: str) -> None:
    same = parent.replace(" ", "") == child.replace(" ", "")
    assert (unchanged(rewrite_step(child, parent)) == "unchanged") == same


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        ("I'm sorry, but I can't rewrite that.", "refused"),
        ("I am not able to do so.", "refused"),
        ("As an AI language model, I have no trees.", "refused"),
        ("抱歉，我不能改写。", "refused"),
        ("作为一个人工智能，我没有树。", "refused"),
        ("“I can’t” are the words of which tree?", None),
        ("Why can't I prune a plum in June?", None),
        ("Explain to a child why trees are not able to walk.", None),
        ("I cannon-balled into a lake; which trees stood by?", None),
        ("Sort these trees by height: plum, yew.", None),
    ],
)
def test_a_rewrite_that_begins_by_refusing_is_no_prompt(child: str, reason: str | None) -> None:
    assert refused(rewrite_step(child)) == reason


def test_a_parent_that_reads_like_a_refusal_may_stay_one() -> None:
    assert refused(rewrite_step("I can't sleep in June. Why?", "I can't sleep. Why?")) is None


@pytest.mark.parametrize(
    ("reply", "verdict", "reason"),
    [
        ("Alike.\nVerdict: equal", "equal", "no_gain"),
        ("More.\n**Verdict: Not equal.**", "not equal", None),
        ("<think>Verdict: equal</think>\nVerdict: not equal", "not equal", None),
        ("They are equal.", "unparsed", None),
        ("Verdict: equal or not equal", "unparsed", None),
    ],
)
def test_only_a_verdict_line_says_that_nothing_was_gained(reply: str, verdict: str, reason: str | None) -> None:
    assert read_reply_verdict(reply) == verdict
    assert no_gain(Step("Name a tree.", NEW, verdict=read_reply_verdict(reply))) == reason


def test_the_page_of_the_method_shows_this_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "evolve.md").read_text()
    assert "\n".join(rule_table(CASES)) in page


def test_answers_that_people_wrote_are_kept() -> None:
    """Two of the 175 seed-task answers say sorry; none of the 2,000 GSM8K solutions does."""
    for name, kept in (("self_instruct/seed_tasks.jsonl", 173), ("gsm8k/train_2000.jsonl", 2000)):
        if not (REAL_DATA / name).exists():
            pytest.skip(f"the real data are not here: ../shared/data/{name}")
        assert real_answers(REAL_DATA / name)[None] == kept
