"""Cheap filters on rows with a response, before anything is paid for judging.

Each is a function from a record to its own name, the reason to drop the row, or None. A row without a response passes
all of them. FILTERS holds them in the order in which they are best tried:

    empty                 no letter, digit or symbol
    echo                  nothing but the prompt again
    too_short             a few words where the prompt asks for a text
    too_long              more words than a context holds
    refusal               begins by declining
    self_identification   speaks of itself as a model, or of its maker (Tülu 3, arXiv 2411.15124; BELLE)
    language_mismatch     in another script than the prompt (BELLE: Chinese prompts with English answers)
    truncated             stops in mid-sentence, or inside a code fence
    repetition            loops, or repeats its lines and phrases (Gopher, arXiv 2112.11446, table A1)

All excuse prompts that ask for just that: to repeat, to decline, about models, to translate. `truncated` sees the text
alone, not the finish reason: our own commands have checked it when the answer came, and foreign rows rarely tell.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from datagen.records.record import Record, as_messages, request_text
from datagen.select.elimination import REFUSAL
from datagen.select.phrases import (  # fmt: skip
    ABOUT_LANGUAGES,
    ABOUT_MODELS,
    ABOUT_REFUSING,
    ABOUT_REPEATING,
    ABOUT_SIGNS,
    ABOUT_VERSE,
    ASKS_FOR_LITTLE,
    ASKS_FOR_TEXT,
    DECLINES,
    FOREIGN_REFUSAL,
    HANGING,
    LABELS,
    NO_OUTPUT,
    SELF,
)
from datagen.text import CJK, count_words
from datagen.verify.languages import FENCES, WEIGHTS, letters, prose

MIN_WORDS = 8
"""Fewer words are no text, where the prompt asks for one; our choice."""
REQUEST_WORDS = 60
"""A longer request brings data along, in which such words as "explain" are not the user's."""
MAX_WORDS = 8000
"""Some 10,000 tokens; our choice."""
REFUSAL_START, REFUSAL_WORDS = 400, 150
"""Characters within which a refusal has said that it is one; words after which it is rather a hedge before help."""
LONG_TEXT = 50
"""Gopher's smallest document, in words: shares in a shorter text mean little, and it may well end without a stop."""
DUPLICATE_LINES, DUPLICATE_LINE_CHARACTERS = 0.30, 0.20
"""Gopher, table A1: the share of lines that are repeats of earlier ones, and of characters in them."""
LINE_WORDS = 4
"""Shorter lines may recur: "Advantages:" under each entry of a list."""
TOP_NGRAM, TOP_NGRAM_CHARACTERS = 4, 0.16
"""Gopher, table A1: the share of characters in the most common n-gram. Shorter ones, "squared is", make tables."""
LONG_NGRAM, DUPLICATE_NGRAM_CHARACTERS = 10, 0.30
"""Gopher's longest n. Its bound, 0.10, is for web pages: worked solutions and parallel lists exceed it, so not here."""
PHRASE_TEXT = 200
"""Words from which phrases are counted: 6 % of the gold solutions of GSM8K, 50 to 150 words long, exceed the bounds."""
LOOP_PERIOD, LOOP_TURNS, LOOP_WORDS = 20, 4, 20
"""A loop: up to so many words, the same at least four times in a row, 20 words or more in all."""
MIN_LETTERS = 15
"""Letters, a Han character as three, that tell a text's script; names, units and commands are Latin everywhere."""
QUOTED = 0.1
"""The share of the prompt's script in a response that only quotes it."""
EXPECTED_LATIN, EXPECTED_OTHER = 0.4, 0.02
"""The share of the response's script in a prompt that makes it no surprise: Latin words are at home in any script."""
SENTENCE_WORDS = 8
"""Words from which a last line is taken for a sentence, which ends in a stop."""
STOPS = ".!?…。！？।۔؟"
OPEN_ENDS = ",，、:：;；-–—(（[{&/"
LIST_ENTRY = re.compile(r"^\s*(?:[-*+•·]|\d{1,3}[.)、]|[（(]\d{1,3}[)）]|[a-zA-Z][.)])\s*")

Filter = Callable[[Record], str | None]


def empty(record: Record) -> str | None:
    """The response is blank, says that there is none, or is punctuation that nobody asked for."""
    if record.response is None:
        return None
    text = NO_OUTPUT.sub("", record.response)
    if not text.strip("\u200b\ufeff \t\r\n"):
        return "empty"
    says = any(unicodedata.category(c)[0] in "LN" or unicodedata.category(c) in ("Sm", "So", "Sc") for c in text)
    return None if says or ABOUT_SIGNS.search(_asked(record)) else "empty"


def echo(record: Record) -> str | None:
    """The response is the prompt, labels and punctuation aside."""
    request = request_text(record.prompt)
    asked, said = (
        "".join(filter(str.isalnum, LABELS.sub(" ", text).casefold())) for text in (request, record.response or "")
    )
    repeats = asked and said and not said.replace(asked, "")
    return "echo" if repeats and not ABOUT_REPEATING.search(request) else None


def too_short(record: Record) -> str | None:
    """A few words, where the prompt asks to write or explain and does not ask for little."""
    if record.response is None or count_words(record.response) >= MIN_WORDS or "```" in record.response:
        return None
    request = request_text(record.prompt)
    wants_text = ASKS_FOR_TEXT.search(request) and not ASKS_FOR_LITTLE.search(request)
    return "too_short" if wants_text and count_words(request) <= REQUEST_WORDS else None


def too_long(record: Record) -> str | None:
    """The response has more than MAX_WORDS words."""
    return "too_long" if count_words(record.response or "") > MAX_WORDS else None


def refusal(record: Record) -> str | None:
    """The response begins by declining; sorrow alone, or help after it, is none."""
    text, asked = record.response or "", _asked(record)
    start = text[:REFUSAL_START]
    declines = (REFUSAL.match(start) and DECLINES.search(start)) or FOREIGN_REFUSAL.match(start)
    excused = ABOUT_REFUSING.search(asked) or (SELF.match(start) and ABOUT_MODELS.search(asked))
    return "refusal" if declines and not excused and count_words(text) < REFUSAL_WORDS else None


def self_identification(record: Record) -> str | None:
    """The response calls itself a model or names its maker, and the prompt is not about such things."""
    says = SELF.search(record.response or "")
    return "self_identification" if says and not ABOUT_MODELS.search(_asked(record)) else None


def language_mismatch(record: Record) -> str | None:
    """The response is in a script that its prompt gives no reason for; code and formulas are no language."""
    asked = _spoken(record)
    wanted, script = _weights(asked), _weights(prose(record.response or ""))
    if min(wanted.total(), script.total()) < MIN_LETTERS or ABOUT_LANGUAGES.search(asked):
        return None
    (own, _), (other, _) = wanted.most_common(1)[0], script.most_common(1)[0]
    foreign = own != other and script[own] <= QUOTED * script.total()
    expected = EXPECTED_LATIN if other == "Latin" else EXPECTED_OTHER
    return "language_mismatch" if foreign and wanted[other] < expected * wanted.total() else None


def truncated(record: Record) -> str | None:
    """The response ends inside a fence, or a long one ends where none of its other sentences would."""
    text = (record.response or "").rstrip()
    if text.count("```") % 2 and text[-1] not in STOPS:
        return "truncated"
    lines = [line for line in prose(text).split("\n") if line.strip()]
    if not lines or text.endswith((*FENCES, *STOPS)) or count_words(text) < LONG_TEXT:
        return None
    return "truncated" if _breaks_off(lines[:-1], lines[-1]) else None


def repetition(record: Record) -> str | None:
    """The response loops, or its repeated lines or phrases exceed Gopher's bounds."""
    asked, text = _asked(record), prose(record.response or "")
    if ABOUT_REPEATING.search(asked):
        return None
    words = _words(text)
    if _loops(words):
        return "repetition"
    if len(words) < LONG_TEXT or ABOUT_VERSE.search(asked):
        return None
    phrases = len(words) >= PHRASE_TEXT and _repeats_phrases(words)
    return "repetition" if phrases or _repeats_lines(text) else None


FILTERS: dict[str, Filter] = {
    function.__name__: function
    for function in (
        empty, echo, too_short, too_long, refusal, self_identification, language_mismatch, truncated, repetition,
    )
}  # fmt: skip
"""The filters by name, cheap ones first."""


def first_reason(record: Record) -> str | None:
    """Return the name of the first filter that drops a record."""
    return next((reason for one in FILTERS.values() if (reason := one(record))), None)


def _asked(record: Record) -> str:
    """Return all that was said before the response."""
    return "\n".join(message["content"] for message in as_messages(record.prompt))


def _spoken(record: Record) -> str:
    """Return what user and model said: the system message may well be in another language."""
    return "\n".join(turn["content"] for turn in as_messages(record.prompt) if turn["role"] != "system")


def _weights(text: str) -> Counter[str]:
    """Weigh the scripts of a text. Chinese and Japanese count as one: a short title tells them apart badly."""
    counts = letters(text)
    weights = Counter({script: count * WEIGHTS.get(script, 1) for script, count in counts.items()})
    weights["Han"] += weights.pop("Kana", 0)
    return weights


def _breaks_off(before: list[str], last: str) -> bool:
    bare = last.strip().rstrip("*_")
    if not bare or "://" in bare.split()[-1]:  # a rule, or an address
        return False
    if bare[-1:] in OPEN_ENDS:
        return count_words(bare) > 3  # "Best regards," ends a letter
    if HANGING.search(bare):
        return True
    if not bare[-1:].isalpha() or count_words(bare) < SENTENCE_WORDS:
        return False
    entry = bool(LIST_ENTRY.match(last))
    alike = [line for line in before if bool(LIST_ENTRY.match(line)) == entry and count_words(line) >= SENTENCE_WORDS]
    inner = bool(re.search(rf"[{STOPS}](?:\s|[^\x00-\x7f])", LIST_ENTRY.sub("", bare)))
    most_end = 2 * sum(map(_ends, alike)) > len(alike) if alike else True
    return most_end and (inner or bool(alike and not entry))


def _ends(line: str) -> bool:
    return line.rstrip(" \t*_\"'”’)）]»」』")[-1:] in STOPS


def _words(text: str) -> list[str]:
    """Split into words and numbers; Han and kana one by one."""
    spaced = CJK.sub(lambda match: f" {match[0]} ", text.casefold())
    return [word for word in spaced.split() if any(map(str.isalnum, word))]


def _loops(words: list[str]) -> bool:
    """Say whether a run of words repeats itself, with any period up to LOOP_PERIOD."""
    for period in range(1, LOOP_PERIOD + 1):
        needed = max(LOOP_WORDS, LOOP_TURNS * period) - period
        run, at = 0, -1
        for one, other in zip(words, words[period:], strict=False):
            run = run + 1 if one == other else 0
            at += 1
            if run == needed and any(word.isalpha() for word in words[at : at + period]):  # rows of digits may be equal
                return True
    return False


def _repeats_lines(text: str) -> bool:
    lines = [LIST_ENTRY.sub("", line).strip().casefold() for line in text.split("\n") if any(map(str.isalnum, line))]
    long = Counter(line for line in lines if count_words(line) >= LINE_WORDS)
    repeats = sum(count - 1 for count in long.values())
    characters = sum(len(line) * (count - 1) for line, count in long.items())
    total = sum(map(len, lines))
    return repeats > DUPLICATE_LINES * len(lines) or characters > DUPLICATE_LINE_CHARACTERS * total


def _repeats_phrases(words: list[str]) -> bool:
    total = sum(map(len, words))
    phrases = Counter(zip(*(words[start:] for start in range(TOP_NGRAM)), strict=False))
    phrase, count = phrases.most_common(1)[0]
    if count > 2 and count * sum(map(len, phrase)) > TOP_NGRAM_CHARACTERS * total:
        return True
    return _covered_twice(words) > DUPLICATE_NGRAM_CHARACTERS * total


def _covered_twice(words: list[str]) -> int:
    """Count the characters of words that lie in a repeat of an earlier phrase of LONG_NGRAM words."""
    seen: set[int] = set()
    covered = characters = 0
    for start in range(len(words) - LONG_NGRAM + 1):
        key = hash(tuple(words[start : start + LONG_NGRAM]))
        if key in seen:
            first, covered = max(start, covered), start + LONG_NGRAM
            characters += sum(map(len, words[first:covered]))
        seen.add(key)
    return characters
