"""The final answer of a response, and its normal form.

Read are a line `#### 18` (GSM8K), `\\boxed{18}`, "The answer is 18.", "Answer: 18", "A: 18" and 答案是18; the last one
counts. Nothing is guessed: a response that states none of these has no answer. The key of an answer is its normal form:
numbers by value, whatever their format or unit; options by letter; all else by its words. Equal keys are not all that
makes two answers the same (equality.py).
"""

import re
from typing import NamedTuple

from datagen.verify.choices import ALL_BREAKS, option_letter, words, yes_no
from datagen.verify.numbers import MAX_LENGTH, normalize_symbols, parse_number

TAIL = 100_000
"""Characters at the end of a response that are searched for its answer."""
MAX_ANSWER = 2_000
"""Characters; a longer text is not a final answer."""

STATEMENT = re.compile(
    r"""^[ \t>]*\#{1,6}[ \t]*(?:final[ \t])?answer[ \t]*+(?:[:：][ \t]*+)?\n
      | ^[ \t>]*\#{4}(?!\#)
      | (?:\b(?:so|thus|hence|therefore)\b[ ,]{0,3})? (?:\b(?:the|my|our)\s{1,3})?
        (?:\b(?:final|correct|right)\s{1,3})?
        (?<!\bno\s)(?<!\bthis\s)(?<!\bthat\s)(?<!\byour\s)(?<!\bif\sthe\s)(?<!\bwhether\sthe\s)(?<!\bif\smy\s)\banswer
        (?:\s{1,3}(?:to|for)\s[^.:\n]{1,80}?)?
        (?: [*_]{0,3} \s{0,3} [:：] [*_]{0,3} | \*\*\s{0,3}\n
          | [*_]{0,3}\s{1,3} (?:is\b(?:\s(?:therefore|thus|hence|then)\b)?|=) (?:\s{0,3}[:：])? )
      | ^[ \t>*_]*(?-i:A)[*_]{0,3}[:：](?!.*\n\s{0,9}(?-i:B)[:：])
      | (?:因此|所以)?[，,]?(?:最终|正确)?答案(?:是|为|[:：])[:：]?
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
WORDS = re.compile(r"answer|####|答案|(?-i:A)[*_]{0,3}[:：]", re.IGNORECASE)
"""One of these stands in every match of STATEMENT, at most LEAD characters behind its start or in the same line."""
LEAD = 80
BRACES = re.compile(r"(\\(?:boxed|fbox)\s{0,3}\{)|\\[{}]|([{}])")
LINE = re.compile(r"[\s*_]*([^\n]*)")
SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\b[I-Z])[.!?](?=\s+[^\sa-z0-9]|\s*$)|[。！？]|(?:,|(?<!\s))\s++(?:because|since)\b|,\s++which\b"
)
"""Of the single letters only A to H end a sentence: those are options ("B. We are done"), later ones are initials."""
MARKUP = " \t\r\n*_`"


class AnswerSpan(NamedTuple):
    """An answer in a text: where its statement starts, where the answer itself starts, where it ends."""

    start: int
    answer_start: int
    end: int
    answer: str


NO_ANSWER = AnswerSpan(-1, -1, -1, "")


def final_answer(text: str) -> str | None:
    """Return the answer that a response states last, as it is written; None if it states none."""
    return split_answer(text)[1]


def split_answer(text: str) -> tuple[str, str | None]:
    """Split a response into (rationale, answer): the text before the last stated answer, and the answer.

    What follows the answer belongs to neither. Without an answer the rationale is the whole text.
    """
    end = len(text.rstrip())
    offset = max(0, end - TAIL)
    stated, boxed = _last_stated(text[offset:end]), _last_boxed(text[offset:end])
    last = max(stated, boxed, key=lambda span: span.answer_start)
    if not last.answer:
        return text, None
    start = stated.start if stated.answer_start <= last.answer_start <= stated.end else last.start
    return text[: offset + start].rstrip(" \t\r\n*_`$\\[("), last.answer


def answer_key(answer: str) -> str:
    """Return the normal form of an answer.

    A number is its reduced fraction ("145.0" and "$145" are "145"), "(B)" is "b", "Yes." is "yes", a list is its
    elements ("[a, b]", "a, b and c" without its "and").
    """
    if len(answer) > MAX_ANSWER:
        return " ".join(answer.casefold().split())
    bare = answer.strip(MARKUP)
    if bare.startswith("[") and bare.endswith("]") and not option_letter(bare):
        return words(bare[1:-1], ALL_BREAKS)
    number = parse_number(bare)
    if number is not None:
        return str(number)
    if choice := option_letter(bare) or yes_no(bare):
        return choice
    # LaTeX's \text{} and the brackets around an answer do not count; those of a tuple belong to it.
    text = normalize_symbols(bare).strip() if len(bare) <= MAX_LENGTH else bare
    is_bracketed = text[:1] == "(" and text[-1:] == ")" and "," not in text
    return words(text[1:-1] if is_bracketed else text)


def _last_stated(text: str) -> AnswerSpan:
    """Find the last line or sentence that states an answer; the answer is its first sentence."""
    word = WORDS.search(text)
    if word is None:
        return NO_ANSWER
    start = min(text.rfind("\n", 0, word.start()) + 1, max(0, word.start() - LEAD))
    for match in reversed(list(STATEMENT.finditer(text, start))):
        line = LINE.match(text, match.end(), match.end() + MAX_ANSWER + 1)
        if line is None or len(line[0]) > MAX_ANSWER:
            continue
        end = SENTENCE_END.search(line[1])
        if answer := line[1][: end.start() if end else None].strip(MARKUP):
            return AnswerSpan(match.start(), line.start(1), line.end(), answer)
    return NO_ANSWER


def _last_boxed(text: str) -> AnswerSpan:
    """Find the box that opens last among those whose braces close, in one pass."""
    last, still_open = NO_ANSWER, list[re.Match[str]]()
    if "box" not in text:
        return last
    for brace in BRACES.finditer(text):
        if brace[1] or brace[2] == "{":
            still_open.append(brace)
        elif brace[2] and still_open:
            opened = still_open.pop()
            answer = text[opened.end() : brace.start()][: MAX_ANSWER + 1].strip()
            if opened[1] and answer and len(answer) <= MAX_ANSWER and opened.end() > last.answer_start:
                last = AnswerSpan(opened.start(), opened.end(), brace.end(), answer)
    return last
