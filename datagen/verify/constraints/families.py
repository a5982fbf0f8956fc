"""The 25 families of IFEval (arXiv 2311.07911): the values, the sentence, the check and the conflicts of each."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from datagen.verify.constraints import checks as check
from datagen.verify.constraints.checks import Kwargs
from datagen.verify.constraints.pools import DRAWS
from datagen.verify.languages import prose

Check = Callable[[str, Kwargs], bool | None]
Draw = Callable[[Random, str], Kwargs]


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of constraint."""

    id: str
    kwargs: tuple[str, ...]
    """The names of its values; each is needed."""
    sentence: str
    """The sentence of a prompt that asks for it, with places for the values."""
    check: Check
    draw: Draw
    """Returns kwargs, given the prompt that the constraint will stand in."""
    conflicts: frozenset[str]
    """The families that it is never drawn with; symmetric."""


SENTENCES: dict[str, tuple[str, Check]] = {
    "keywords:existence": (
        "Use each of these words: {keywords}.",
        lambda text, kwargs: all(check.count_keyword(text, word) for word in kwargs["keywords"]),
    ),
    "keywords:forbidden_words": (
        "Do not use any of these words: {forbidden_words}.",
        lambda text, kwargs: not any(check.count_keyword(text, word) for word in kwargs["forbidden_words"]),
    ),
    "keywords:frequency": (
        "Use the word {keyword} {relation} {frequency:time}.",
        lambda text, kwargs: check.compare_count(
            check.count_keyword(text, kwargs["keyword"]), kwargs["relation"], kwargs["frequency"]
        ),
    ),
    "keywords:letter_frequency": (
        "Let the character {letter}, small or capital, occur {let_relation} {let_frequency:time}.",
        lambda text, kwargs: check.compare_count(
            text.casefold().count(kwargs["letter"].casefold()), kwargs["let_relation"], kwargs["let_frequency"]
        ),
    ),
    "language:response_language": (
        "Answer in {language} only.",
        lambda text, kwargs: check.same_language(text, kwargs["language"]),
    ),
    "length_constraints:number_sentences": (
        "Your answer has {relation} {num_sentences:sentence}.",
        lambda text, kwargs: check.compare_count(
            check.count_sentences(text), kwargs["relation"], kwargs["num_sentences"]
        ),
    ),
    "length_constraints:number_paragraphs": (
        "Write {num_paragraphs:paragraph}; put a line that holds only *** between one paragraph and the next.",
        lambda text, kwargs: len(check.split_parts(check.DIVIDER, text)) == kwargs["num_paragraphs"],
    ),
    "length_constraints:number_words": (
        "Your answer has {relation} {num_words:word}.",
        lambda text, kwargs: check.compare_count(check.count_words(text), kwargs["relation"], kwargs["num_words"]),
    ),
    "length_constraints:nth_paragraph_first_word": (
        "Write {num_paragraphs:paragraph} with a blank line between one and the next, and nothing else. "
        "The first word of paragraph {nth_paragraph} is {first_word}.",
        check.nth_paragraph_first_word,
    ),
    "detectable_content:number_placeholders": (
        "Leave at least {num_placeholders:placeholder} in square brackets to be filled in, such as [address].",
        lambda text, kwargs: len(check.PLACEHOLDER.findall(text)) >= kwargs["num_placeholders"],
    ),
    "detectable_content:postscript": (
        "After your answer, add a postscript on a line that starts with {postscript_marker}",
        check.postscript,
    ),
    "detectable_format:number_bullet_lists": (
        "Use exactly {num_bullets:Markdown bullet point}, each on its own line, such as: * This is a point.",
        lambda text, kwargs: len(check.BULLET.findall(prose(text))) == kwargs["num_bullets"],
    ),
    "detectable_format:constrained_response": (
        "Say exactly one of these: My answer is yes. My answer is no. My answer is maybe.",
        lambda text, kwargs: sum(answer in " ".join(text.casefold().split()) for answer in check.ANSWERS) == 1,
    ),
    "detectable_format:number_highlighted_sections": (
        "Highlight at least {num_highlights:passage} with Markdown asterisks, *like this*.",
        lambda text, kwargs: len(check.HIGHLIGHT.findall(prose(text))) >= kwargs["num_highlights"],
    ),
    "detectable_format:multiple_sections": (
        "Divide your answer into at least {num_sections:section}. Each starts on a line of its own with the word "
        "{section_spliter} and its number, 1 for the first.",
        check.multiple_sections,
    ),
    "detectable_format:json_format": (
        "Give the whole answer as one JSON value, an object or array.",
        check.json_format,
    ),
    "detectable_format:title": (
        "Give your answer a title in double angle brackets, such as <<a title>>.",
        lambda text, kwargs: check.TITLE.search(text) is not None,
    ),
    "combination:two_responses": (
        "Give two different answers, with ****** (six asterisks) between them and nowhere else.",
        lambda text, kwargs: len(parts := check.split_parts(check.SIX_STARS, text)) == 2 and parts[0] != parts[1],
    ),
    "combination:repeat_prompt": (
        "Before your answer, repeat this request word for word, with nothing in front of it: {prompt_to_repeat}",
        check.repeat_prompt,
    ),
    "startend:end_checker": ("End with exactly this, and nothing after it: {end_phrase}", check.end_checker),
    "startend:quotation": ("Put your whole answer between double quotation marks.", check.quotation),
    "change_case:capital_word_frequency": (
        "Let {capital_relation} {capital_frequency:word} be in capital letters only, I and A included.",
        lambda text, kwargs: check.compare_count(
            sum(map(str.isupper, check.CAPITAL_TOKEN.findall(text))),
            kwargs["capital_relation"],
            kwargs["capital_frequency"],
        ),
    ),
    "change_case:english_capital": (
        "Answer in English, in capital letters only.",
        lambda text, kwargs: check.same_language(text, "en") if text.isupper() else False,
    ),
    "change_case:english_lowercase": (
        "Answer in English, in small letters only, without a single capital.",
        lambda text, kwargs: check.same_language(text, "en") if text.islower() else False,
    ),
    "punctuation:no_comma": ("Do not use a single comma.", lambda text, kwargs: check.COMMA.search(text) is None),
}
"""Family to its sentence and check."""

ONLY_WITH = {
    "detectable_format:constrained_response": "",
    "detectable_format:json_format": "existence forbidden_words frequency letter_frequency",
    "combination:two_responses": "existence forbidden_words letter_frequency response_language number_words "
    "english_capital english_lowercase no_comma",
    "combination:repeat_prompt": "existence number_placeholders postscript number_highlighted_sections title "
    "multiple_sections end_checker",
}
"""Families that fix so much of the answer that they are combined with these only."""
APART = {
    "response_language": "existence frequency letter_frequency nth_paragraph_first_word multiple_sections end_checker "
    "capital_word_frequency english_capital english_lowercase",
    "number_sentences": "number_words number_paragraphs nth_paragraph_first_word number_bullet_lists multiple_sections",
    "nth_paragraph_first_word": "number_paragraphs number_bullet_lists multiple_sections",
    "end_checker": "postscript quotation english_capital english_lowercase",
    "capital_word_frequency": "english_capital english_lowercase multiple_sections",
    "english_capital": "english_lowercase multiple_sections",
    "english_lowercase": "multiple_sections postscript",
}
"""Pairs of families that contradict each other or can hardly be met together; each pair is listed once. The fixed texts
of a family have capitals and small letters, so none goes with one case alone."""


def _conflicts() -> dict[str, frozenset[str]]:
    """Map each family to the families that it is never drawn with, from ONLY_WITH and APART."""
    full = {name.split(":")[1]: name for name in SENTENCES}
    pairs = {(full[a], full[b]) for a, others in APART.items() for b in others.split()}
    for one, others in ONLY_WITH.items():
        allowed = {one, *(full[name] for name in others.split())}
        pairs |= {(one, other) for other in SENTENCES if other not in allowed}
    return {one: frozenset({b for a, b in pairs if a == one} | {a for a, b in pairs if b == one}) for one in SENTENCES}


CONFLICTS = _conflicts()
FAMILIES: dict[str, Family] = {
    name: Family(name, values, sentence, check, DRAWS[name], CONFLICTS[name])
    for name, (sentence, check) in SENTENCES.items()
    for values in [tuple(dict.fromkeys(re.findall(r"\{(\w+)", sentence)))]
}
"""The 25 families, in IFEval's order."""
