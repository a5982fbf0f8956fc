"""The checks of IFEval's constraints (arXiv 2311.07911). Checks of one expression stand in families.py.

A check takes a response that is not blank, and kwargs that `spec.constraint` has read. It returns whether the response
meets the constraint, or None if this cannot be known.

Where IFEval's own check contradicts the sentence in the prompt, the sentence wins: keywords are whole words ("cat" is
not in "education"), list markers and horizontal rules are not words, a sentence does not end after "e.g.", brackets of
links and subscripts are not placeholders, a Chinese comma is a comma, and all three fixed answers together are not one
of them. Every check takes time linear in the length of the response: no pattern backtracks over more than one line.
"""

import json
import re
from typing import Any

from datagen.text import CJK
from datagen.verify.languages import NAMES, detect, dominant_script, prose

Kwargs = dict[str, Any]

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Characters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han, Hangul."""
SPACED = rf"[^\W_{UNSPACED}]"
"""A letter or digit of a script that puts spaces between words."""
ANSWERS = ("my answer is yes.", "my answer is no.", "my answer is maybe.")
HIGHLIGHT = re.compile(r"(?<![A-Za-z0-9*\\])\*{1,3}(?![\s*])[^*\n]+(?<!\s)\*")
PLACEHOLDER = re.compile(r"(?<![A-Za-z0-9_\])!])\[(?=[^\[\]\n]*[^\W\d])[^\[\]\n]{2,}\](?![(\[])")
BULLET = re.compile(r"^[ \t>]*[-*+][ \t]++(?![-*+ \t]*$)\S", re.MULTILINE)
TITLE = re.compile(r"<<(?=[^<>\n]*\w)[^<>\n]+>>")
DIVIDER = re.compile(r"^[ \t]*\*(?:[ \t]?\*){2}[ \t]*$", re.MULTILINE)
SIX_STARS = re.compile(r"(?<!\*)\*{6}(?!\*)")
CAPITAL_TOKEN = re.compile(r"(?:[^\W\d_]\.){2,}|\w[\w-]*")
"""A word that may be in capitals; U.S. and COVID-19 are one each."""
COMMA = re.compile("[,，、،]")
MARKUP = " \t\n*_#>`"
QUOTES = str.maketrans("“”„‟«»‘’", '""""""\'\'')

SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]»*_]*(?=\s|$)|[。！？।۔؟]+[\"'”’」』）)*_]*")
BLOCK_START = re.compile(r"^[ \t>]*(?:[-*+•][ \t]+|\d{1,3}[.)][ \t]+)", re.MULTILINE)
HEADING = re.compile(r"^ {0,3}#{1,6}[ \t].*$|^[ \t]*\*\*[^*\n]+\*\*:?[ \t]*$|<<[^<>\n]+>>", re.MULTILINE)
ABBREVIATIONS = frozenset(
    "e.g i.e cf vs etc mr mrs ms dr prof st jr sr no fig eq approx dept est inc ltd co vol pp ed al gen sgt capt rev "
    "jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s u.k z.b bzw ca usw z d.h p.ex sra dra".split()
)
NEVER_LAST = frozenset("e.g i.e cf vs mr mrs ms dr prof fig eq approx z.b d.h sra dra gen sgt capt rev st".split())
"""Abbreviations that something always follows; the others can end a sentence."""


def compare_count(count: int | None, relation: str, wanted: int) -> bool | None:
    """Compare a count as IFEval's relations say, "at least" or "less than"; None for an unknown count."""
    return None if count is None else count >= wanted if relation == "at least" else count < wanted


def whole_word(phrase: str) -> str:
    """Return a pattern that matches a word or phrase in any case, but not inside a longer word."""
    before = rf"(?<!{SPACED})" if re.match(SPACED, phrase[0]) else ""
    after = rf"(?!{SPACED})" if re.match(SPACED, phrase[-1]) else ""
    # the flag on the class of UNSPACED would compile for milliseconds
    return f"{before}(?i:{re.escape(phrase)}){after}"


def count_keyword(text: str, keyword: str) -> int:
    """Count a word or phrase, in any case."""
    return sum(1 for _ in re.finditer(whole_word(keyword), text))


def count_words(text: str) -> int | None:
    """Count words that hold a letter or digit, each Han or kana character as one; None for Thai."""
    if dominant_script(text) == "Thai":
        return None
    spaced, characters = CJK.subn(" ", text)
    return characters + sum(any(map(str.isalnum, word)) for word in spaced.split())


def count_sentences(text: str) -> int | None:
    """Count the sentences of running text and list items, but not headings, rules and code; None for Thai."""
    text = HEADING.sub("\n", prose(text))
    if dominant_script(text) == "Thai":
        return None
    blocks = re.split(r"\n[ \t]*\n", BLOCK_START.sub("\n\n", text))
    return sum(map(_sentences_of_block, blocks))


def _sentences_of_block(block: str) -> int:
    lower_case = not any(map(str.isupper, block))
    count, start = 0, 0
    for end in SENTENCE_END.finditer(block):
        if _ends_sentence(block, end, lower_case):
            count += any(map(str.isalnum, block[start : end.end()]))
            start = end.end()
    return count + any(map(str.isalnum, block[start:]))


def _ends_sentence(text: str, end: re.Match[str], lower_case: bool) -> bool:
    """Return whether a full stop ends a sentence.

    It does not after an abbreviation or an initial, nor, in a text with capitals, before a small letter.
    """
    after = text[end.end() : end.end() + 12].lstrip(" \t\n\"'“‘(*_")[:1]
    if not after or end[0][0] in "。！？।۔؟":
        return True
    if after.islower() and (not lower_case or end[0].startswith(("..", "…"))):
        return False
    before = text[max(0, end.start() - 12) : end.start()].split()
    word = before[-1].strip("\"'“‘([*_").casefold() if before else ""
    if end[0][0] != "." or end[0].startswith(".."):
        return True
    initial = len(word) == 1 and word.isalpha() and word != "i" and after.isupper()
    return not (initial or word in NEVER_LAST or (word in ABBREVIATIONS and not after.isupper()))


def same_language(response: str, code: str) -> bool | None:
    """Return whether a text is in a language; None if its language is not detected, or the code is not known."""
    detected = detect(response)
    return None if detected is None or code not in NAMES else detected == code


def split_parts(divider: re.Pattern[str], text: str) -> list[str]:
    """Split a text at its dividers; one at either end does not count, and two with nothing between them give []."""
    parts = [part.strip() for part in divider.split(text)]
    parts = parts[not parts[0] : len(parts) - (not parts[-1])]
    return parts if all(parts) else []


def nth_paragraph_first_word(response: str, kwargs: Kwargs) -> bool:
    """Check the number of paragraphs, with blank lines between them, and the first word of one of them."""
    paragraphs = [part for part in re.split(r"\n[ \t]*\n", response) if part.strip()]
    if len(paragraphs) != kwargs["num_paragraphs"]:
        return False
    text = paragraphs[kwargs["nth_paragraph"] - 1].translate(QUOTES).strip(MARKUP + "\"'([-")
    return bool(re.match(whole_word(kwargs["first_word"].translate(QUOTES)), text))


def postscript(response: str, kwargs: Kwargs) -> bool:
    """Check that a line after the first starts with the marker, and that a word follows the marker."""
    letters_of = [re.escape(letter) for letter in kwargs["postscript_marker"] if letter.isalnum()]
    marker = r"\.? ?".join(letters_of) + r"(?![A-Za-z]|\.[A-Za-z]\.)"
    matches = re.finditer(rf"^[ \t*_#>]*{marker}\W*\w", response, re.IGNORECASE | re.MULTILINE)
    return any(not response[: match.start()].isspace() for match in matches if match.start())


def multiple_sections(response: str, kwargs: Kwargs) -> bool:
    """Check the number of different headings, such as SECTION 1 or Day IV, each at the start of a line."""
    name = re.escape(kwargs["section_spliter"].strip())
    numbers = re.findall(rf"^[ \t#*_>]*{name}[ \t]+(\d{{1,9}}|[IVXLC]{{1,9}})(?!\w)", response, re.MULTILINE)
    return bool(len(set(numbers)) >= kwargs["num_sections"])


def json_format(response: str, kwargs: Kwargs) -> bool:
    """Check that the whole response is one JSON object or array, in a code fence or not."""
    text = response.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[text.index("\n") : -3]
    try:  # numbers stay text: they may have more digits than int() takes; int() fails for NaN and Infinity
        value = json.loads(text, parse_int=str, parse_float=str, parse_constant=int)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)


def repeat_prompt(response: str, kwargs: Kwargs) -> bool:
    """Check that the response first repeats the request, word for word, and then goes on."""
    text, request = (" ".join(text.casefold().split()) for text in (response, kwargs["prompt_to_repeat"]))
    return text.startswith(request) and any(map(str.isalnum, text[len(request) :]))


def end_checker(response: str, kwargs: Kwargs) -> bool:
    """Check that the response ends with the phrase; quotation marks, emphasis and spaces after it do not count."""
    text, phrase = (
        " ".join(text[-20_000:].translate(QUOTES).casefold().split()).rstrip("\"'*_ ")
        for text in (response, kwargs["end_phrase"])
    )
    return bool(re.search(rf"{whole_word(phrase)}\Z", text[-len(phrase) - 1 :]))


def quotation(response: str, kwargs: Kwargs) -> bool:
    """Check that one pair of double quotation marks encloses the response; only curly marks inside can be paired."""
    text = response.strip()
    if len(text) < 3 or text[0] not in '"“' or text[-1] not in '"”':
        return False
    if text[0] == '"' or text[-1] == '"':
        return text[0] == text[-1]
    depth = 0
    for mark in re.finditer("[“”]", text):
        depth += 1 if mark[0] == "“" else -1
        if depth == 0:
            return mark.end() == len(text)
    return False
