"""Words, tokens and the exact-duplicate key of a text, in every script.

For plain English the tokens are those of rouge-score 0.1.2, so ROUGE-L values are equal to the last digit. That tool
keeps only a-z and 0-9: two equal Chinese sentences score 0.0, and two different ones that share a digit score 1.0.
Here a word may have letters of any script; each character is a token where a script puts no spaces between words; and
the tokens of a text without any letter (emoji, `2 + 2`) are its characters. Korean has spaces and is split at them.
"""

import re
import unicodedata
from collections.abc import Sequence

UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
)
"""The scripts that are written without spaces, as ranges of a character class."""
INDIC = "\u0900-\u0963\u0966-\u0dff"
"""Scripts with vowel signs that belong to the word, though Python's `\\w` leaves them out."""
TOKEN = re.compile(rf"[{UNSPACED}]|(?:[^\W_{UNSPACED}]|[{INDIC}])+")
CHARACTER = re.compile(rf"[{UNSPACED}]")
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""A Chinese or Japanese character."""
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""What a reader does not see (Unicode, Default_Ignorable_Code_Point, and three marks of annotation): zero-width spaces
and joiners, soft hyphens, marks of direction, variation selectors."""
MEANINGFUL_SIGN = re.compile(r"(?<=\d)[\W_]+(?=\d)|[-−](?=\d)|(?<=\d)%|(?<=[^\W\d_])#")
"""Signs that distinguish 3.5 from 35, 3 * 4 from 3 / 4, 3 4 from 34, -5 from 5, 20% from 20, C# from C."""


def count_of(number: int, noun: str) -> str:
    """Write a number with its noun: "1 answer", "2,000 answers"."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def visible(text: str) -> str:
    """Return a text without the characters that a reader does not see."""
    return text if text.isascii() else INVISIBLE.sub("", text)


def normal(text: str) -> str:
    """Return the one form of a text that keys, tokens and comparisons use: NFKC, without invisible characters."""
    return text if text.isascii() else INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def count_words(text: str) -> int:
    """Count words; a Chinese or Japanese character counts as one, since no spaces separate them."""
    spaced, characters = CJK.subn(" ", text)
    return len(spaced.split()) + characters


def tokens(text: str) -> list[str]:
    """Return the tokens of a text in order: lower-case words, and single characters of unspaced scripts.

    Unicode NFKC makes one form of full-width letters, ligatures and composed accents. Only a text of nothing but spaces
    has no tokens.
    """
    text = normal(text).lower()
    return TOKEN.findall(text) or [c for c in text if not c.isspace()]


def is_unspaced(token_list: list[str]) -> bool:
    """Tell whether at least half of the tokens are single characters of an unspaced script."""
    return 2 * sum(CHARACTER.match(token) is not None for token in token_list) >= len(token_list) > 0


def exact_key(text: str) -> str:
    """Return the key that exact duplicates share: in normal form, case folded, without spaces and punctuation.

    Signs that change the meaning are kept. A text of nothing but punctuation is its own key.
    """
    text = normal(text).casefold()
    pieces, end = [], 0
    for match in MEANINGFUL_SIGN.finditer(text):
        pieces += [strip_punctuation(text[end : match.start()]), " ".join(match[0].split()) or " "]
        end = match.end()
    return "".join([*pieces, strip_punctuation(text[end:])]) or " ".join(text.split())


def strip_punctuation(text: str) -> str:
    """Remove spaces and punctuation everywhere in a text; mathematical symbols stay."""
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c)[0] != "P")


def ngram_hashes(words: Sequence[str], size: int) -> list[int]:
    """Hash all runs of `size` words in order, to 64 bits; the hashes differ from process to process."""
    return [hash(tuple(words[start : start + size])) for start in range(len(words) - size + 1)]
