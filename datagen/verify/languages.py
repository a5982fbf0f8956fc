"""Which language a text is in, from its script and from py3langid 0.4 (a naive Bayes model of 140 languages).

A script that one language of ours is written in decides by itself, so that a short text is enough. Elsewhere the model
does, where its probability is at least CONFIDENCE. A text that is too short, mixed, code, or in a language that is
close to another one gives None: it is not known. Fenced code is left out.
"""

from collections import Counter, defaultdict
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

FENCES = ("```", "~~~")
DOMINANT = 0.6
"""The share of all letters that a script needs: answers in Hindi or Chinese quote Latin names."""
CONFIDENCE = 0.75
"""The least probability of a language. On 288 sentences in 36 languages (`python -m benchmarks.languages`) 272 are
right, 16 unknown and none wrong; of their first halves and of their first three words none is wrong either. At 0.65
some are."""
FEWEST_LETTERS = 8
"""The least weight of the letters of a text: a formula with some Greek letters is not Greek, 東京 not Chinese."""
CODE_SIGNS, MOST_CODE_SIGNS = frozenset("{}()[]<>=;_"), 0.08
"""A text in which they are a larger share of what is no space is code, whatever its words are; prose has 0.01."""
VARIANTS = {"yue": "zh", "wuu": "zh", "ary": "ar", "arz": "ar"}
"""Labels of the model that are one written language for a reader."""
NO_LANGUAGE = "zxx"

SCRIPTS = {
    "Latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrillic": ((0x400, 0x52F),),
    "Hebrew": ((0x590, 0x5FF),),
    "Arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "Devanagari": ((0x900, 0x963), (0x966, 0x97F)),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Thai": ((0xE00, 0xE7F),),
    "Hangul": ((0x1100, 0x11FF), (0xAC00, 0xD7AF)),
    "Kana": ((0x3040, 0x30FF),),
    "Han": ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
}
"""Code points of the letters and vowel signs of each script, first and last."""
WEIGHTS = {"Han": 3, "Kana": 2, "Hangul": 2}
"""A character of these says as much as that many letters: 我爱 Python 编程 is Chinese."""
ONE_LANGUAGE = {
    "Greek": "el", "Hebrew": "he", "Gurmukhi": "pa", "Gujarati": "gu", "Tamil": "ta", "Telugu": "te",
    "Kannada": "kn", "Malayalam": "ml", "Thai": "th", "Hangul": "ko", "Kana": "ja",
}  # fmt: skip
NAMES = {
    "ar": "Arabic", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian", "fi": "Finnish",
    "fr": "French", "gl": "Galician", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "kn": "Kannada", "ko": "Korean", "ml": "Malayalam", "mr": "Marathi",
    "ne": "Nepali", "nl": "Dutch", "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""The languages that a text can be asked for in, by their codes."""
LOADING = Lock()


def prose(text: str) -> str:
    """Return a text without its fenced code; a fence that is never closed runs to the end."""
    kept, fence = [], ""
    for line in text.split("\n"):
        mark = line.lstrip()[:3]
        if fence:
            fence = "" if mark == fence else fence
        elif mark in FENCES:
            fence = mark
        else:
            kept.append(line)
    return "\n".join(kept)


def count_letters(text: str) -> Counter[str]:
    """Count the letters of each script; whatever belongs to no script of the table is not counted."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        code = ord(character)
        if code < 0x80:  # most of most texts, and not only letters
            script = "Latin" if character.isalpha() else None
        else:
            spans = ((name, span) for name, spans in SCRIPTS.items() for span in spans)
            script = next((name for name, (first, last) in spans if first <= code <= last), None)
        if script:
            counts[script] += count
    return counts


def dominant_script(text: str) -> str | None:
    """Return the script that a text is written in; Han with kana is Japanese: Kana. None if none prevails."""
    counts = count_letters(text)
    if counts["Kana"] > counts["Han"] / 10:  # Chinese quotes little of it; Japanese is rarely less than a third kana
        counts["Kana"] += counts.pop("Han", 0)
    for script, weight in WEIGHTS.items():
        counts[script] *= weight
    if not counts.total():
        return None
    script, count = counts.most_common(1)[0]
    return script if count >= DOMINANT * counts.total() else None


def detect(text: str) -> str | None:
    """Return the code of the language of a text (ISO 639, two letters where there are two); None if not certain."""
    text = prose(text)
    script = dominant_script(text)
    if script is None or count_letters(text)[script] * WEIGHTS.get(script, 1) < FEWEST_LETTERS or looks_like_code(text):
        return None
    if script in ONE_LANGUAGE:
        return ONE_LANGUAGE[script]
    language, probability = max(probabilities(text).items(), key=lambda pair: pair[1])
    return language if probability >= CONFIDENCE and language != NO_LANGUAGE else None


def looks_like_code(text: str) -> bool:
    """Return whether so many of the characters of a text are signs of code that its words are not those of prose."""
    counts = Counter("".join(text.split()))
    return sum(counts[sign] for sign in CODE_SIGNS) > MOST_CODE_SIGNS * counts.total()


def probabilities(text: str) -> dict[str, float]:
    """Return the probability of each language that the model knows, by code."""
    with LOADING:  # threads that ask at the same time load it once
        identifier = load_identifier()
    sums: defaultdict[str, float] = defaultdict(float)
    for label, probability in identifier.rank(text):
        sums[VARIANTS.get(label, label)] += probability
    return sums


@cache
def load_identifier() -> "LanguageIdentifier":
    """Load the model, which takes a second of processor time; nothing in it changes when it is used."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def is_chinese(text: str) -> bool:
    """Return whether a text is Chinese, also where it is mixed with as much Latin: 自动给 commit 增加 message."""
    text = prose(text)
    script, counts = dominant_script(text), count_letters(text)
    return script == "Han" or (script is None and counts["Han"] > counts["Kana"])
