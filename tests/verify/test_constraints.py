"""Verifiable constraints: hand-written answers, IFEval's own rows, hostile kwargs, drawing, long answers."""

import json
import time
from collections.abc import Callable
from itertools import combinations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.records.record import Record
from datagen.verify.constraints.pools import (
    ENDINGS,
    LANGUAGES,
    MARKERS,
    SCARCE_LETTERS,
    SECTION_NAMES,
    TO_AVOID,
    TO_COUNT,
    TO_OPEN,
    TO_USE,
)
from datagen.verify.constraints.spec import (
    FAMILIES,
    Constraint,
    constraint,
    constraint_sentence,
    draw_constraints,
    is_met,
    read_constraints,
    verify_constraints,
    without,
)
from datagen.verify.languages import NAMES, detect
from tests.conftest import REAL_DATA
from tests.verify.constraint_cases import CASES, GERMAN, SENTENCES, UNDECIDED

Kwargs = dict[str, Any]
FLAT = [
    (id, kwargs, answer, wanted)
    for id, cases in CASES.items()
    for kwargs, good, bad in cases
    for wanted, answers in ((True, good), (False, bad))
    for answer in answers
]
REAL_ROWS = REAL_DATA / "ifeval" / "input_data_341.jsonl"


@pytest.mark.parametrize(("id", "kwargs", "answer", "wanted"), FLAT)
def test_an_answer_meets_a_constraint_or_does_not(id: str, kwargs: Kwargs, answer: str, wanted: bool) -> None:
    assert is_met(constraint(id, kwargs), answer) is wanted


@pytest.mark.parametrize(("id", "kwargs", "answer"), UNDECIDED)
def test_what_cannot_be_known_is_none(id: str, kwargs: Kwargs, answer: str) -> None:
    one = constraint(id, kwargs)
    assert is_met(one, answer) is None


def test_every_family_has_cases_and_a_blank_answer_meets_none() -> None:
    assert list(CASES) == list(FAMILIES)
    assert len(FAMILIES) == 25
    for id, cases in CASES.items():
        one = constraint(id, cases[0][0])
        assert is_met(one, " \n") is is_met(one, "") is False


def real_records() -> list[Record]:
    if not REAL_ROWS.exists():
        pytest.skip("the real IFEval rows are not here: ../shared/data/ifeval/input_data_341.jsonl")
    rows = [json.loads(line) for line in REAL_ROWS.read_text(encoding="utf-8").splitlines()]
    return [Record("0" * 16, row["prompt"], extra=row, line=number) for number, row in enumerate(rows, 1)]


def test_every_row_of_ifeval_is_read_stated_and_checked() -> None:
    records = real_records()
    seen = set()
    for record in records:
        constraints = read_constraints(record)
        assert [one.id for one in constraints] == record.extra["instruction_id_list"]
        assert [one.kwargs for one in constraints] == record.extra["kwargs"]
        for one in constraints:
            seen.add(one.id)
            assert is_met(one, "Some answer, a short one.") in (True, False, None)
            statement = constraint_sentence(one)
            assert "{" not in statement.replace(str(one.kwargs.get("prompt_to_repeat")), "") and len(statement) > 15
            numbers = [str(value) for value in one.kwargs.values() if isinstance(value, int)]
            assert all(number in statement for number in numbers)
    assert (len(records), seen) == (341, set(FAMILIES))


def test_the_stated_constraint_says_its_values() -> None:
    statements = {
        ("keywords:frequency", '{"relation": "at least", "keyword": "war", "frequency": 1}'): (
            'Use the word "war" at least 1 time.'
        ),
        ("keywords:existence", '{"keywords": ["{x}", "b"]}'): 'Use each of these words: "{x}", "b".',
        ("language:response_language", '{"language": "kn"}'): "Answer in Kannada only.",
        ("length_constraints:number_words", '{"relation": "less than", "num_words": 300}'): (
            "Your answer has less than 300 words."
        ),
    }
    assert {key: constraint_sentence(constraint(key[0], json.loads(key[1]))) for key in statements} == statements


WORDS, BULLETS, NTH = (
    "length_constraints:number_words",
    "detectable_format:number_bullet_lists",
    "length_constraints:nth_paragraph_first_word",
)


def asking(id: object, kwargs: object) -> Kwargs:
    return {"constraints": [{"id": id, "kwargs": kwargs}]}


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (asking("keywords:frequency", {"keyword": "a", "relation": "at least"}),
         'row 7: constraint "keywords:frequency": frequency must be a whole number from 1, found nothing'),
        (asking(WORDS, {"relation": "at most", "num_words": 3}),
         f'row 7: constraint "{WORDS}": relation must be "at least" or "less than", found \'at most\''),
        (asking(WORDS, {"relation": "at least", "num_words": "3"}),
         "num_words must be a whole number from 1, found '3'"),
        (asking(BULLETS, {"num_bullets": True}), "found True"),
        (asking(BULLETS, {"num_bullets": 1e999}), "found inf"),
        (asking(BULLETS, {"num_bullets": 2.5}), "found 2.5"),
        (asking(BULLETS, {"num_bullets": 0}), "found 0"),
        (asking("keywords:existence", {"keywords": "cat"}), "must be a list of words, found 'cat'"),
        (asking("keywords:existence", {"keywords": [" "]}), "must be a list of words"),
        (asking("keywords:existence", {"keywords": []}), "must be a list of words, found []"),
        (asking("keywords:letter_frequency", {"letter": "ab", "let_relation": "at least", "let_frequency": 1}),
         "letter must be one character"),
        (asking("language:response_language", {"language": "\x1b[31m"}), r"found '\x1b[31m'"),
        (asking("startend:end_checker", {"end_phrase": "**"}), "text with a letter or digit"),
        (asking("punctuation:no_comma", {"num": 3}), "unknown 'num'; it takes nothing"),
        ({"constraints": [{"id": "punctuation:no_comma", "kwargs": [3]}]}, "its kwargs must be an object, found [3]"),
        (asking("no:such", {}), "constraint 'no:such' is not known"),
        ({"constraints": [{"id": ["x"], "kwargs": {}}]}, "constraint ['x'] is not known"),
        ({"constraints": [{"kwargs": {}}]}, '"constraints" must be a list of {"id", "kwargs"}'),
        ({"constraints": "punctuation:no_comma"}, '"constraints" is text, but no JSON'),
        ({"constraints": '"punctuation:no_comma"'}, '"constraints" must be a list'),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "must be lists of one length"),
        (asking(NTH, {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}), "beyond num_paragraphs"),
    ],
)  # fmt: skip
def test_hostile_kwargs_end_in_one_line_that_names_the_constraint(extra: Kwargs, says: str) -> None:
    with pytest.raises(InputError) as error:
        read_constraints(Record("0" * 16, "x", extra=extra, line=7))
    assert says in str(error.value)
    assert str(error.value).isprintable() and len(str(error.value)) < 250


def test_a_row_of_either_shape_gives_the_same_constraints() -> None:
    named_constraints = {
        "constraints": [
            {"id": "punctuation:no_comma"},
            {"id": "detectable_format:number_bullet_lists", "kwargs": {"num_bullets": 3.0}},
        ]
    }
    ifeval_columns = {
        "instruction_id_list": ["punctuation:no_comma", BULLETS],
        "kwargs": [{"num_bullets": None, "relation": None}, {"num_bullets": 3, "relation": None}],
    }  # fmt: skip
    both = [read_constraints(Record("0" * 16, "x", extra=extra)) for extra in (named_constraints, ifeval_columns)]
    assert both[0] == both[1] == [
        Constraint("punctuation:no_comma"), Constraint("detectable_format:number_bullet_lists", {"num_bullets": 3})
    ]  # fmt: skip
    assert read_constraints(Record("0" * 16, "x", extra={"kwargs": {"any": "thing"}})) == []


def test_a_record_is_verified_by_all_its_constraints() -> None:
    ids = ["punctuation:no_comma", "language:response_language"]
    record = Record("0" * 16, "x", extra={"instruction_id_list": ids, "kwargs": [{}, {"language": "de"}]})
    answers = {
        GERMAN.replace(",", ""): True, GERMAN: False, "OK.": None, "OK, OK.": False,
        f"<think>well, well</think>{GERMAN.replace(',', '')}": True,
    }  # fmt: skip
    assert {answer: verify_constraints(record, answer) for answer in answers} == answers
    assert verify_constraints(Record("0" * 16, "x"), "Anything.") is None
    answer = "The cat, and the dog in the house."
    assert [is_met(one, answer) for one in read_constraints(record)] == [False, False]


def test_conflicts_are_symmetric_and_never_with_oneself() -> None:
    for id, family in FAMILIES.items():
        assert id not in family.conflicts
        assert all(id in FAMILIES[other].conflicts for other in family.conflicts)
    conflicting = {("english_lowercase", "english_capital"), ("json_format", "no_comma"), ("json_format", "title")}
    full = {id.split(":")[1]: id for id in FAMILIES}
    assert all(full[b] in FAMILIES[full[a]].conflicts for a, b in conflicting)


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_drawn_constraints_are_as_many_as_asked_valid_and_go_together(seed: int, count: int) -> None:
    constraints = draw_constraints(Random(seed), count, "Describe a tree.")
    assert len({one.id for one in constraints}) == len(constraints) == count
    assert all(b.id not in FAMILIES[a.id].conflicts for a, b in combinations(constraints, 2))
    assert [constraint(one.id, one.kwargs) for one in constraints] == constraints
    assert constraints == draw_constraints(Random(seed), count, "Describe a tree.")


def test_every_family_is_drawn_but_nothing_is_repeated_without_a_prompt() -> None:
    drawn_ids = [one.id for seed in range(600) for one in draw_constraints(Random(seed), 1, "Describe a tree.")]
    assert set(drawn_ids) == set(FAMILIES)
    without_prompt = {one.id for seed in range(600) for one in draw_constraints(Random(seed), 1)}
    assert set(FAMILIES) - without_prompt == {"combination:repeat_prompt"}
    with pytest.raises(ValueError, match="no 20 constraints"):
        draw_constraints(Random(0), 20)


def test_no_drawn_value_contradicts_another() -> None:
    pools = [TO_USE, TO_AVOID, TO_COUNT, TO_OPEN, *([phrase.lower().strip("?!.").split() for phrase in ENDINGS])]
    assert all(set(a).isdisjoint(b) for a, b in combinations(pools[:4], 2))
    assert all(set(phrase).isdisjoint({*TO_AVOID, *TO_COUNT}) for phrase in pools[4:])
    values = " ".join([*TO_USE, *TO_COUNT, *TO_OPEN, *ENDINGS, *MARKERS, *SECTION_NAMES]).lower()
    assert not set(SCARCE_LETTERS) & set(values)
    assert not any("," in phrase for phrase in ENDINGS)
    assert set(LANGUAGES) <= set(NAMES)


def test_no_fixed_text_is_drawn_with_a_demand_for_another_case() -> None:
    fixed = ("end_phrase", "postscript_marker", "section_spliter", "prompt_to_repeat")
    for seed in range(2000):
        constraints = draw_constraints(Random(seed), 2 + seed % 4, "Describe a tree.")
        texts = [one.kwargs[name] for one in constraints for name in fixed if name in one.kwargs]
        ids = {one.id for one in constraints}
        assert "change_case:english_lowercase" not in ids or all(map(str.islower, texts)), ids
        assert "change_case:english_capital" not in ids or all(map(str.isupper, texts)), ids


def test_one_constraint_is_left_out_for_the_rejected_answer() -> None:
    constraints = draw_constraints(Random(1), 3)
    assert without(constraints, constraints[1]) == [constraints[0], constraints[2]]
    with pytest.raises(ValueError, match="at least two"):
        without(constraints[:1], constraints[0])
    with pytest.raises(ValueError, match="at least two"):
        without(constraints[:2], constraints[2])


def test_every_language_that_is_drawn_is_recognised() -> None:
    assert {code: detect(text) for code, text in SENTENCES.items()} == {code: code for code in LANGUAGES}


def repeat(unit: str, count: int, joint: str = " ") -> str:
    return joint.join([unit] * count)


def target(kwargs: Kwargs, name: str, relation: str = "relation") -> int:
    bound: int = kwargs[name]
    return bound - 1 if kwargs[relation] == "less than" else bound


WRITERS: dict[str, Callable[[Kwargs], str]] = {
    "keywords:existence": lambda k: "We saw " + " and ".join(k["keywords"]),
    "keywords:forbidden_words": lambda k: "We saw " + " ".join(f"{word}ish" for word in k["forbidden_words"]),
    "keywords:frequency": lambda k: "So: " + repeat(k["keyword"], target(k, "frequency")),
    "keywords:letter_frequency": lambda k: ". " + repeat(k["letter"], target(k, "let_frequency", "let_relation")),
    "language:response_language": lambda k: SENTENCES[k["language"]],
    "length_constraints:number_sentences": lambda k: repeat("We met Mr. Lee, e.g. here.", target(k, "num_sentences")),
    "length_constraints:number_paragraphs": lambda k: repeat("We met.", k["num_paragraphs"], "\n\n***\n\n"),
    "length_constraints:number_words": lambda k: "- " + repeat("well-known", target(k, "num_words")),
    "length_constraints:nth_paragraph_first_word": lambda k: "\n\n".join(
        f'"{k["first_word"].title()}", so.' if n == k["nth_paragraph"] else "Yes."
        for n in range(1, k["num_paragraphs"] + 1)
    ),
    "detectable_content:number_placeholders": lambda k: repeat("[name]", k["num_placeholders"]),
    "detectable_content:postscript": lambda k: f"Yes.\n\n{k['postscript_marker']} No.",
    "detectable_format:number_bullet_lists": lambda k: repeat("* one", k["num_bullets"], "\n"),
    "detectable_format:constrained_response": lambda k: "My answer is maybe.",
    "detectable_format:number_highlighted_sections": lambda k: repeat("*a* or **b**", k["num_highlights"]),
    "detectable_format:multiple_sections": lambda k: "\n".join(
        f"{k['section_spliter']} {n}\nYes." for n in range(1, k["num_sections"] + 1)
    ),
    "detectable_format:json_format": lambda k: '```json\n{"a": [1, null]}\n```',
    "detectable_format:title": lambda k: "<<Yes>>\nNo.",
    "combination:two_responses": lambda k: "Yes.\n******\nNo.",
    "combination:repeat_prompt": lambda k: f"{k['prompt_to_repeat']}\n\nYes.",
    "startend:end_checker": lambda k: f"Yes. {k['end_phrase']}",
    "startend:quotation": lambda k: '"Yes, "indeed"."',
    "change_case:capital_word_frequency": lambda k: (
        "Yes: " + repeat("NO", target(k, "capital_frequency", "capital_relation"))
    ),
    "change_case:english_capital": lambda k: "THIS IS THE END.",
    "change_case:english_lowercase": lambda k: "this is the end.",
    "punctuation:no_comma": lambda k: "This is the end.",
}  # fmt: skip


@pytest.mark.parametrize("id", FAMILIES)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_a_drawn_constraint_can_be_met_and_broken_at_its_very_bound(id: str, seed: int) -> None:
    kwargs = FAMILIES[id].draw(Random(seed), "Describe a tree, please.")
    one = constraint(id, kwargs)
    answer = WRITERS[id](kwargs)
    assert is_met(one, answer) is True
    bounds = {
        "frequency",
        "let_frequency",
        "num_sentences",
        "num_words",
        "capital_frequency",
        "num_bullets",
        "num_sections",
    }
    for name in bounds & kwargs.keys():
        relation = next((value for value in kwargs.values() if value in ("at least", "less than")), "at least")
        tighter = {**kwargs, name: kwargs[name] + (1 if relation == "at least" else -1)}
        if tighter[name]:
            assert is_met(constraint(id, tighter), answer) is False


MILLION = 10**6
LONG = [
    unit * (MILLION // len(unit)) + end
    for unit in (
        "a", "a. ", ".", "[", "*a", "* ", "<", "\n", "P.S. ", "P.S.\n", '"', "“", " ", "你好。", "A.A.", "[a", "```a\n",
        "*", "\t>", "SECTION 1 ", "#", "1. ", "**a**\n", "\n\n", "a, ",
    )
    for end in ("", "a")
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("answer", LONG, ids=lambda text: repr(text[:6]))
def test_a_megabyte_is_checked_in_seconds(answer: str) -> None:
    for id, cases in CASES.items():
        start = time.process_time()
        is_met(constraint(id, cases[0][0]), answer)
        assert time.process_time() - start < 15, id  # of a slow machine; the square of a million would be hours
