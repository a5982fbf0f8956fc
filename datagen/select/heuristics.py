"""Cheap filters on rows with a response, before anything is paid for judging.

Each is a function from a record to its own name, the reason to drop the row, or None. A row without a response passes
all of them. FILTERS lists them, the cheap ones first:

    empty                 no letter, digit or symbol
    echo                  nothing but the prompt again
    too_short             a few words where the prompt asks for a text
    too_long              more words than a context holds
    refusal               begins with a refusal
    self_identification   calls itself a model, or names its maker (Tülu 3, arXiv 2411.15124; BELLE)
    language_mismatch     in another script than the prompt (BELLE: Chinese prompts with English answers)
    truncated             stops in mid-sentence, or inside a code fence
    repetition            loops, or repeats its lines and phrases (Gopher, arXiv 2112.11446, table A1)

All of them exempt prompts that ask for exactly that: to repeat, to decline, about models, to translate. `truncated`
sees only the text, not the finish reason: our own commands check that with the answer, and other rows rarely have one.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from datagen.records.record import Record, Text, as_messages, request_text
from datagen.select import Rule
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
from datagen.select.refusals import REFUSAL
from datagen.text import CJK, count_words, ngram_hashes, visible
from datagen.verify.languages import FENCES, WEIGHTS, count_letters, prose

MIN_WORDS = 8
"""Fewer words are too short where the prompt asks for a text; our choice."""
REQUEST_WORDS = 60
"""A longer request contains data, in which words such as "explain" are not the user's."""
MAX_WORDS = 8000
"""Some 10,000 tokens; our choice."""
REFUSAL_START, REFUSAL_WORDS = 400, 150
"""Characters at the start in which a refusal shows; words from which the text is rather a hedge before help."""
LONG_TEXT = 50
"""Gopher's smallest document, in words: shares in a shorter text mean little, and it may end without a full stop."""
DUPLICATE_LINES, DUPLICATE_LINE_CHARACTERS = 0.30, 0.20
"""Gopher, table A1: the share of lines that repeat earlier ones, and of characters in them."""
LINE_WORDS = 4
"""Shorter lines may recur: "Advantages:" under each entry of a list."""
TOP_NGRAM, TOP_NGRAM_CHARACTERS = 4, 0.16
"""Gopher, table A1: the share of characters in the most common n-gram. Shorter ones, "squared is", make tables."""
LONG_NGRAM, DUPLICATE_NGRAM_CHARACTERS = 10, 0.30
"""Gopher's longest n. Its bound, 0.10, is for web pages: worked solutions and parallel lists exceed it, so not here."""
PHRASE_TEXT = 200
"""Words from which phrases are counted: 6 % of the gold solutions of GSM8K, 50 to 150 words long, exceed the bounds."""
LOOP_PERIOD, LOOP_TURNS, LOOP_WORDS = 20, 4, 20
"""A loop: a phrase of up to 20 words, at least four times in a row, 20 words or more in all."""
MIN_LETTERS = 15
"""Letters, a Han character counting three, from which a text has a script; names and units are Latin everywhere."""
QUOTED = 0.1
"""The share of the prompt's script in a response that only quotes it."""
EXPECTED_LATIN, EXPECTED_OTHER = 0.4, 0.02
"""The share of the response's script in the prompt from which it is expected: Latin words occur in any script."""
SENTENCE_WORDS = 8
"""Words from which a last line counts as a sentence, which ends with a full stop."""
STOPS = ".!?…。！？।۔؟"
CLOSING_SIGNS = " \t*_\"'”’)）]»」』"
"""Signs that may follow a stop at the end of a line."""
OPEN_ENDS = ",，、:：;；-–—(（[{&/"
LIST_ENTRY = re.compile(r"^\s*(?:[-*+•·]|\d{1,3}[.)、]|[（(]\d{1,3}[)）]|[a-zA-Z][.)])\s*")


def empty(record: Record) -> str | None:
    """The response is blank, says that there is none, or is only punctuation that the prompt did not ask for."""
    if record.response is None:
        return None
    text = NO_OUTPUT.sub("", record.response)
    if not visible(text).strip():
        return "empty"
    readable = any(unicodedata.category(c)[0] in "LN" or unicodedata.category(c) in ("Sm", "So", "Sc") for c in text)
    return None if readable or ABOUT_SIGNS.search(conversation(record)) else "empty"


def echo(record: Record) -> str | None:
    """The response is the prompt, apart from labels and punctuation."""
    request = request_text(record.prompt)
    prompt, response = (
        "".join(filter(str.isalnum, LABELS.sub(" ", text).casefold())) for text in (request, record.response or "")
    )
    repeats = prompt and response and not response.replace(prompt, "")
    return "echo" if repeats and not ABOUT_REPEATING.search(request) else None


def too_short(record: Record) -> str | None:
    """A few words, where the prompt asks to write or explain and sets no limit."""
    if record.response is None or count_words(record.response) >= MIN_WORDS or "```" in record.response:
        return None
    request = request_text(record.prompt)
    wants_text = ASKS_FOR_TEXT.search(request) and not ASKS_FOR_LITTLE.search(request)
    return "too_short" if wants_text and count_words(request) <= REQUEST_WORDS else None


def too_long(record: Record) -> str | None:
    """The response has more than MAX_WORDS words."""
    return "too_long" if count_words(record.response or "") > MAX_WORDS else None


def refusal(record: Record) -> str | None:
    """The response begins with a refusal; an expression of regret, or help that follows, is none."""
    text, context = record.response or "", conversation(record)
    start = text[:REFUSAL_START]
    declines = (REFUSAL.match(start) and DECLINES.search(start)) or FOREIGN_REFUSAL.match(start)
    exempt = ABOUT_REFUSING.search(context) or (SELF.match(start) and ABOUT_MODELS.search(context))
    return "refusal" if declines and not exempt and count_words(text) < REFUSAL_WORDS else None


def self_identification(record: Record) -> str | None:
    """The response calls itself a model or names its maker, and the prompt is not about such things."""
    match = SELF.search(record.response or "")
    return "self_identification" if match and not ABOUT_MODELS.search(conversation(record)) else None


def language_mismatch(record: Record) -> str | None:
    """The response is in a script that the prompt gives no reason for; code and formulas are no language."""
    # The system message may be in another language.
    turns = "\n".join(turn["content"] for turn in as_messages(record.prompt) if turn["role"] != "system")
    prompt, response = script_weights(turns), script_weights(prose(record.response or ""))
    if min(prompt.total(), response.total()) < MIN_LETTERS or ABOUT_LANGUAGES.search(turns):
        return None
    (expected, _), (script, _) = prompt.most_common(1)[0], response.most_common(1)[0]
    foreign = expected != script and response[expected] <= QUOTED * response.total()
    share = EXPECTED_LATIN if script == "Latin" else EXPECTED_OTHER
    return "language_mismatch" if foreign and prompt[script] < share * prompt.total() else None


def truncated(record: Record) -> str | None:
    """The response ends inside a code fence, or a long one ends where none of its other sentences would."""
    text = (record.response or "").rstrip()
    if text.count("```") % 2 and text[-1] not in STOPS:
        return "truncated"
    lines = [line for line in prose(text).split("\n") if line.strip()]
    if not lines or text.endswith((*FENCES, *STOPS)) or count_words(text) < LONG_TEXT:
        return None

    # 1. The last line alone: it ends with an open sign, or with a word that ends no sentence.
    last = lines.pop()
    end = last.strip().rstrip("*_")
    if not end or "://" in end.split()[-1]:  # a horizontal rule, or an address
        return None
    if end[-1] in OPEN_ENDS:
        return "truncated" if count_words(end) > 3 else None  # "Best regards," ends a letter
    if HANGING.search(end):
        return "truncated"
    if not end[-1].isalpha() or count_words(end) < SENTENCE_WORDS:
        return None

    # 2. The last line among the earlier ones of its kind, list entries or not: most of these must end with a stop.
    entry = bool(LIST_ENTRY.match(last))
    peers = [line for line in lines if bool(LIST_ENTRY.match(line)) == entry and count_words(line) >= SENTENCE_WORDS]
    with_stop = sum(line.rstrip(CLOSING_SIGNS)[-1:] in STOPS for line in peers)
    if peers and 2 * with_stop <= len(peers):
        return None
    has_inner_stop = re.search(rf"[{STOPS}](?:\s|[^\x00-\x7f])", LIST_ENTRY.sub("", end))
    return "truncated" if has_inner_stop or (peers and not entry) else None


def repetition(record: Record) -> str | None:
    """The response loops, or its repeated lines or phrases exceed Gopher's bounds."""
    context, text = conversation(record), prose(record.response or "")
    if ABOUT_REPEATING.search(context):
        return None
    spaced = CJK.sub(lambda match: f" {match[0]} ", text.casefold())
    words = [word for word in spaced.split() if any(map(str.isalnum, word))]
    if _loops(words):
        return "repetition"
    if len(words) < LONG_TEXT or ABOUT_VERSE.search(context):
        return None
    phrases = len(words) >= PHRASE_TEXT and _repeats_phrases(words)
    return "repetition" if phrases or _repeats_lines(text) else None


FILTERS: dict[str, Rule[Record]] = {
    rule.__name__: rule
    for rule in (
        empty, echo, too_short, too_long, refusal, self_identification, language_mismatch, truncated, repetition,
    )
}  # fmt: skip
"""The filters by name, the cheap ones first."""
REASONS = {
    "empty": "The response has no letter, digit or symbol.",
    "echo": "The response is nothing but the prompt again.",
    "too_short": "The response has a few words where the prompt asks for a text.",
    "too_long": "The response has more words than a context holds.",
    "refusal": "The response begins with a refusal.",
    "self_identification": "The response calls itself a model, or names its maker.",
    "language_mismatch": "The response is in another script than the prompt.",
    "truncated": "The response stops in mid-sentence, or inside a code fence.",
    "repetition": "The response loops, or repeats its lines and phrases.",
}
"""What the names of the filters mean."""


def as_seen(record: Record) -> Record:
    """Return a row as a reader sees it: without invisible characters in its prompt and its response."""
    prompt: Text = (
        visible(record.prompt)
        if isinstance(record.prompt, str)
        else [{**message, "content": visible(message["content"])} for message in record.prompt]
    )
    response = None if record.response is None else visible(record.response)
    return (
        record
        if (prompt, response) == (record.prompt, record.response)
        else replace(record, prompt=prompt, response=response)
    )


def conversation(record: Record) -> str:
    """Return the text of all messages before the response."""
    return "\n".join(message["content"] for message in as_messages(record.prompt))


def script_weights(text: str) -> Counter[str]:
    """Weigh the scripts of a text. Chinese and Japanese count as one: a short title does not show which it is."""
    weights = Counter({script: count * WEIGHTS.get(script, 1) for script, count in count_letters(text).items()})
    weights["Han"] += weights.pop("Kana", 0)
    return weights


def _loops(words: list[str]) -> bool:
    """Return whether a phrase of up to LOOP_PERIOD words repeats itself in a row."""
    for period in range(1, LOOP_PERIOD + 1):
        needed = max(LOOP_WORDS, LOOP_TURNS * period) - period
        for start, end in _runs(words, period, needed):
            at = start + needed - 1
            if end - start >= needed and any(map(str.isalpha, words[at : at + period])):  # rows of digits may be equal
                return True
    return False


def _runs(words: list[str], period: int, needed: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of words that equal the one a period later: all of `needed` words, and some shorter ones.

    Such a run holds one of any `needed` places in a row, so that only every so many places are looked at.
    """
    last, place = len(words) - period, needed - 1
    while place < last:
        if words[place] != words[place + period]:
            place += needed
            continue
        start = end = place
        while start and words[start - 1] == words[start - 1 + period]:
            start -= 1
        while end < last and words[end] == words[end + period]:
            end += 1
        yield start, end
        place = end + needed


def _repeats_lines(text: str) -> bool:
    """Return whether too many lines repeat earlier ones, or too many characters are in such lines."""
    lines = [LIST_ENTRY.sub("", line).strip().casefold() for line in text.split("\n") if any(map(str.isalnum, line))]
    long = Counter(line for line in lines if count_words(line) >= LINE_WORDS)
    repeats = sum(count - 1 for count in long.values())
    characters = sum(len(line) * (count - 1) for line, count in long.items())
    total = sum(map(len, lines))
    return repeats > DUPLICATE_LINES * len(lines) or characters > DUPLICATE_LINE_CHARACTERS * total


def _repeats_phrases(words: list[str]) -> bool:
    """Return whether too many characters are in the most common short phrase, or in repeats of long ones."""
    total = sum(map(len, words))
    phrases = Counter(zip(*(words[start:] for start in range(TOP_NGRAM)), strict=False))
    phrase, count = phrases.most_common(1)[0]
    if count > 2 and count * sum(map(len, phrase)) > TOP_NGRAM_CHARACTERS * total:
        return True
    seen: set[int] = set()
    end = characters = 0
    for start, key in enumerate(ngram_hashes(words, LONG_NGRAM)):
        if key in seen:
            first, end = max(start, end), start + LONG_NGRAM
            characters += sum(map(len, words[first:end]))
        seen.add(key)
    return characters > DUPLICATE_NGRAM_CHARACTERS * total
