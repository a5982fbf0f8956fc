"""Which generated instructions and instances are kept (Self-Instruct, arXiv 2212.10560; Alpaca's, BELLE's additions).

Instructions, by the names that stand in the rejected file:

    too_short, too_long     under 4 or over 150 words; a Chinese or Japanese character counts as a word
    needs_media             a text model cannot do it: look at this picture, draw a map, open the file, go to a page
    writes_program          begins "Write a program": the paper leaves it open what its output would be
    starts_with_punctuation the rest of a list that was split in the wrong place
    not_english             begins with a non-ASCII character (ENGLISH only)
    has_link, names_gpt     a web address, or the name of GPT (CHINESE only; BELLE)
    trailing_colon          announces something that is missing (USER_TURN only; Magpie)
    answers                 the assistant speaks: offers help, or calls itself a model (USER_TURN only)

Instances: copied_input, empty_output, trailing_colon; then, among those of one task, truncated, contradiction and
duplicate.

Departures. The paper drops whole words wherever they stand, "map", "file", "plot" and "go to" among them, and with
them "map each word to its length", "file a complaint", "the plot of the novel" and "before I go to bed". Here a
medium must be shown or asked for: "this map", "the map below", "draw a map", "open the file", a sentence that begins
"Go to". A text or a program about a medium is text ("write a caption for an image", "a graph algorithm"). An opening
quote or bracket is no stray punctuation. BELLE's bounds, 4 to 99 characters or 149 with an example, become the paper's.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from datagen.select import Rule
from datagen.select.phrases import SELF
from datagen.text import count_words

WORDS = range(4, 151)
"""The reference code of Self-Instruct: three words or fewer, or more than 150, are dropped."""
OPENERS = "\"'“‘«「『《【（([{$¿¡<"
MEDIUM = (
    r"(?:images?|pictures?|photo(?:graph)?s?|screenshots?|graphs?|charts?|diagrams?|flow ?charts?|maps?|files?|videos?"
    r"|audios?|audio (?:clips?|recordings?)|music)\b"
)
NOT_AS_TEXT = (
    r"(?![ -](?:captions?|titles?|scripts?|descriptions?|names?|ideas?|prompts?|class(?:es)?|algorithms?|theory|nodes?"
    r"|structures?|systems?|formats?|functions?|programs?|librar(?:y|ies)|playlists?|databases?|games?|reviews?|lyrics"
    r"|recommendations?|naming)\b)"
)
START = r"(?:(?:^|[.!?:;\n](?![^\S\n]*\n))\s*(?:please\s+|first,?\s+|then\s+)?|\b(?:please|can\s+you|could\s+you)\s+)"
START_OR_AND = rf"(?:{START}|\b(?:and|then)\s+)"
USE_VERBS = (
    r"(?:describe|look\s+at|watch|listen\s+to|play|edit|open|read|upload|download|save|delete|rename|print|scan)"
)
CREATE_VERBS = r"(?:create|make|generate|design|produce|render|draw|sketch|paint|plot|compose|show|take|record)"
DRAWN_IN_WORDS = (
    r"(?!\w*\s*(?:conclusions?|inferences?|comparisons?|parallels?|distinctions?|lessons?|contrasts?|analog(?:y|ies)"
    r"|cards?|balls?|marbles?|names?|tickets?|samples?|numbers?)\b)"
)
PLOTTED = r"(?:data|points?|function|curve|line|histogram|equation|results?)\b"
NEEDS_MEDIA = re.compile(
    rf"""
      \b(?:this|the\s+(?:following|attached|given|provided|uploaded))\s+(?:[a-z]+\s+)?{MEDIUM}{NOT_AS_TEXT}
    | \b{MEDIUM}\s+(?:below|above|attached|provided|uploaded|shown)\b
    | {START}{USE_VERBS}\s+(?:the|some|my|your|that)\s+(?:\w+\s+)?{MEDIUM}{NOT_AS_TEXT}
    | {START_OR_AND}{CREATE_VERBS}\s+(?:me\s+|us\s+)?(?:(?:an?|the|some|your)\s+)?(?:\w+\s+)?{MEDIUM}{NOT_AS_TEXT}
    | {START_OR_AND}(?:draw|sketch|paint)\s+(?:me\s+)?(?:an?|the|your|some)\s+{DRAWN_IN_WORDS}
    | {START_OR_AND}plot\s+(?:the|an?|this|these)\s+(?:\w+\s+)?{PLOTTED}
    | {START}go\s+to\b
    | (?:这|下面的?|以下|上面的?|上述|所给的?|附件中?的?)[张幅个段些份]?
        (?:图片?|照片|图像|图表|地图|视频|音频|文件|附件)
    | 如[下上]?图 | [下上]图 | 看图 | 画出?[一个张幅] | 绘制
    | (?:播放|收听|观看|打开|上传|下载)[这一那该]?[个首段份]?(?:音乐|歌曲|音频|视频|文件)
    """,
    re.IGNORECASE | re.VERBOSE,
)
OFFER = re.compile(
    r"""how\ (?:can|may|could)\ I\ (?:(?:help|assist)(?:\ you|\ today|\s*[?!.])|be\ of\ (?:help|service|assistance))
    | (?:can|may)\ I\ (?:help|assist)\ you
    | I(?:['’]m|\ am)\ sorry,?\ but\ I\ (?:can(?:no|['’])?t|am\ (?:un|not\ )able\ to)\ (?:help|assist|fulfil|provide)
    | 有什么(?:我)?(?:可以|能)?帮 | (?:可以|能)为[您你](?:做|提供|服务)""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class PatternRule:
    """A rule that rejects an instruction with a match of a pattern; spaces around the instruction are ignored."""

    name: str
    pattern: re.Pattern[str]

    def __call__(self, instruction: str) -> str | None:
        return self.name if self.pattern.search(instruction.strip()) else None


needs_media = PatternRule("needs_media", NEEDS_MEDIA)
writes_program = PatternRule("writes_program", re.compile(r"\Awrite a program\b", re.IGNORECASE))
has_link = PatternRule("has_link", re.compile(r"https?:|www\.", re.IGNORECASE))
"""It has a web address, which a text model cannot open."""
names_gpt = PatternRule("names_gpt", re.compile(r"(?:chat\s*)?gpt(?:[\s-]*[34](?:\.5)?)?|openai", re.IGNORECASE))
"""It names GPT or its maker."""
trailing_colon = PatternRule("trailing_colon", re.compile(r"[:：]\Z"))
"""It ends with a colon: what it announces is missing."""


def too_short(instruction: str) -> str | None:
    """Under four words."""
    return "too_short" if count_words(instruction) < WORDS.start else None


def too_long(instruction: str) -> str | None:
    """Over 150 words."""
    return "too_long" if count_words(instruction) >= WORDS.stop else None


def starts_with_punctuation(instruction: str) -> str | None:
    """Its first character is punctuation that cannot open a sentence."""
    first = instruction.lstrip()[:1]
    stray = first not in OPENERS and (first in string.punctuation or unicodedata.category(first)[0] == "P")
    return "starts_with_punctuation" if first and stray else None


def not_english(instruction: str) -> str | None:
    """Its first character, after an opening quote, is not ASCII."""
    return None if instruction.lstrip().lstrip(OPENERS)[:1].isascii() else "not_english"


def answers(instruction: str) -> str | None:
    """The words are the assistant's, not the user's."""
    return "answers" if OFFER.search(instruction) or SELF.search(instruction) else None


COMMON: tuple[Rule[str], ...] = (too_short, too_long, needs_media, starts_with_punctuation)
ENGLISH: tuple[Rule[str], ...] = (*COMMON, writes_program, not_english)
ANY_LANGUAGE: tuple[Rule[str], ...] = (*COMMON, writes_program)
"""Where the seed tasks are not all English."""
CHINESE: tuple[Rule[str], ...] = (*COMMON, has_link, names_gpt)
USER_TURN: tuple[Rule[str], ...] = (answers, *COMMON, has_link, trailing_colon)
"""For a user's turn written by a model, in any language."""
LATER_TURN = tuple(rule for rule in USER_TURN if rule is not too_short)
"""For a turn that follows an answer."""


class Instance(NamedTuple):
    """An example of a task. The input may be empty."""

    input: str
    output: str


def instance_reasons(instances: Sequence[Instance], *, truncated: bool = False) -> list[str | None]:
    """Return for each instance of one task why it is rejected, or None.

    Args:
        instances: The instances, in the order of the reply.
        truncated: Whether the reply met the length limit, so that its last instance is incomplete.
    """
    # 1. What an instance shows by itself.
    stripped = [Instance(instance.input.strip(), instance.output.strip()) for instance in instances]
    reasons: list[str | None] = []
    for source, output in stripped:
        if not output:
            reasons.append("empty_output")
        elif source == output:
            reasons.append("copied_input")
        else:
            reasons.append(trailing_colon(source) or trailing_colon(output))
    if truncated and reasons:
        reasons[-1] = "truncated"

    # 2. Two instances with the same input, which is not empty, and different outputs: nobody knows which is right.
    good = {instance for instance, reason in zip(stripped, reasons, strict=True) if not reason}
    outputs = Counter(instance.input for instance in good if instance.input)
    contradiction = any(count > 1 for count in outputs.values())

    # 3. Repeated instances.
    seen: set[Instance] = set()
    for place, instance in enumerate(stripped):
        if not reasons[place]:
            repeated = "duplicate" if instance in seen else None
            reasons[place] = "contradiction" if contradiction else repeated
            seen.add(instance)
    return reasons


REASONS = {
    "too_short": "It has fewer than four words.",
    "too_long": "It has more than 150 words.",
    "needs_media": "It needs a picture, a file or a page, which a text model does not have.",
    "starts_with_punctuation": "It begins with punctuation: the rest of a list that was split in the wrong place.",
}
"""What the rules of COMMON mean."""
TASK_REASONS = {
    **REASONS,
    "writes_program": 'It begins "Write a program", and leaves open what its output would be.',
    "not_english": "It begins with a character that is not ASCII, though all seeds are English.",
    "has_link": "It holds a web address, which a text model cannot open.",
    "names_gpt": "It names GPT or its maker.",
    "copied_input": "The answer of an example is its input.",
    "empty_output": "An example has no answer.",
    "trailing_colon": "The text ends with a colon: what it announces is missing.",
    "truncated": "The reply reached the length limit inside it. Raise --max-tokens.",
    "contradiction": "Two examples of the task have the same input and different answers.",
    "duplicate": "An earlier row of the output, or an earlier example of the task, holds the same texts.",
}
"""What the rules for new tasks and their instances mean."""
USER_REASONS = {
    **REASONS,
    "answers": "The turn is the assistant's: it offers help, or calls itself a model.",
    "has_link": TASK_REASONS["has_link"],
    "trailing_colon": TASK_REASONS["trailing_colon"],
}
"""What the rules of USER_TURN mean."""
