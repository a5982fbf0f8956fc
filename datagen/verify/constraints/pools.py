"""Random values for drawn constraints: word pools, ranges, and how each family draws from them.

The pools share no word and hold no scarce letter: a word to use is never one to avoid, and "less than 3 times the
letter z" leaves every other demand possible. Ranges are wide (Tülu 3 drew from
narrow ones, which a model learns by heart).
"""

from collections.abc import Callable
from random import Random

from datagen.verify.constraints.checks import Kwargs

TO_USE = tuple(
    "anchor basket bridge candle cheerful cloud coastal copper distant early engine feather fountain garden gentle "
    "golden harbor hidden history ladder lantern market meadow mirror morning mountain needle ocean orchard paper "
    "pattern pencil planet pocket river rocket sailor shadow silver simple station steady stone sudden summer "
    "thunder timber tunnel valley village violin wander weather window winter wonder yellow".split()
)
TO_AVOID = tuple(
    "actually although always amount amusing another basically because become believe clearly course delve different "
    "easily especially everyone finally first furthermore generally great however important indeed interesting "
    "literally many maybe moreover never often overall particular perhaps possible pretty probably rather "
    "really several simply some something sometimes special therefore things thus truly unfortunately usually "
    "various very whereas while".split()
)
TO_COUNT = tuple(
    "bird boat book bread city color dream family farm fire floor flower friend game gift goal hand home house idea "
    "island lake learning letter light map memory moon music name night number path park picture plan plant price "
    "road room school season ship song sound story street teacher time town train tree water wind word world "
    "year".split()
)
TO_OPEN = tuple(
    "after before consider during every few in later most nobody nothing one our people second suppose "
    "there they today two under we when with without yesterday".split()
)
COMMON_LETTERS, SCARCE_LETTERS = "aeinorstlc", "jqxz"
ENDINGS = (
    "Ask me if you need more.",
    "Do you want to hear more about it?",
    "Good luck and have fun!",
    "Hope that helps.",
    "I am done.",
    "Now it is up to you.",
    "So much for today!",
    "That is all there is to it.",
    "That is all.",
    "What would you do?",
)
SECTION_NAMES = ("SECTION", "Section", "PART", "Part", "CHAPTER", "Chapter", "STEP", "Day")
MARKERS = ("P.S.", "P.P.S")
LANGUAGES = tuple("ar bg bn de es fa fi fr gu he hi it ja kn ko ml mr ne pa pl pt ru sw ta te uk ur vi zh".split())
"""Those that the check knows, without English, which is no constraint, and Thai, whose words cannot be counted."""


def _either(random: Random, name: str, at_least: tuple[int, int], less_than: tuple[int, int], relation: str) -> Kwargs:
    """Draw a relation and a number from its range."""
    drawn = random.choice(("at least", "less than"))
    return {relation: drawn, name: random.randint(*(at_least if drawn == "at least" else less_than))}


def _letter_frequency(random: Random, prompt: str) -> Kwargs:
    """Draw a lower bound for a common letter, or an upper bound for a rare one."""
    kwargs = _either(random, "let_frequency", (3, 60), (2, 12), "let_relation")
    common = kwargs["let_relation"] == "at least"
    return {**kwargs, "letter": random.choice(COMMON_LETTERS if common else SCARCE_LETTERS)}


DRAWS: dict[str, Callable[[Random, str], Kwargs]] = {
    "keywords:existence": lambda random, prompt: {"keywords": random.sample(TO_USE, random.randint(1, 5))},
    "keywords:forbidden_words": lambda random, prompt: {
        "forbidden_words": random.sample(TO_AVOID, random.randint(1, 6))
    },
    "keywords:frequency": lambda random, prompt: {
        "keyword": random.choice(TO_COUNT),
        **_either(random, "frequency", (1, 8), (2, 6), "relation"),
    },
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": lambda random, prompt: {"language": random.choice(LANGUAGES)},
    "length_constraints:number_sentences": lambda random, prompt: _either(
        random, "num_sentences", (3, 30), (4, 25), "relation"
    ),
    "length_constraints:number_paragraphs": lambda random, prompt: {"num_paragraphs": random.randint(2, 8)},
    "length_constraints:number_words": lambda random, prompt: _either(
        random, "num_words", (50, 800), (150, 600), "relation"
    ),
    "length_constraints:nth_paragraph_first_word": lambda random, prompt: {
        "num_paragraphs": (count := random.randint(2, 8)),
        "nth_paragraph": random.randint(1, count),
        "first_word": random.choice(TO_OPEN),
    },
    "detectable_content:number_placeholders": lambda random, prompt: {"num_placeholders": random.randint(1, 9)},
    "detectable_content:postscript": lambda random, prompt: {"postscript_marker": random.choice(MARKERS)},
    "detectable_format:number_bullet_lists": lambda random, prompt: {"num_bullets": random.randint(2, 12)},
    "detectable_format:constrained_response": lambda random, prompt: {},
    "detectable_format:number_highlighted_sections": lambda random, prompt: {"num_highlights": random.randint(1, 10)},
    "detectable_format:multiple_sections": lambda random, prompt: {
        "section_spliter": random.choice(SECTION_NAMES),
        "num_sections": random.randint(2, 8),
    },
    "detectable_format:json_format": lambda random, prompt: {},
    "detectable_format:title": lambda random, prompt: {},
    "combination:two_responses": lambda random, prompt: {},
    "combination:repeat_prompt": lambda random, prompt: {"prompt_to_repeat": prompt},
    "startend:end_checker": lambda random, prompt: {"end_phrase": random.choice(ENDINGS)},
    "startend:quotation": lambda random, prompt: {},
    "change_case:capital_word_frequency": lambda random, prompt: _either(
        random, "capital_frequency", (1, 20), (4, 30), "capital_relation"
    ),
    "change_case:english_capital": lambda random, prompt: {},
    "change_case:english_lowercase": lambda random, prompt: {},
    "punctuation:no_comma": lambda random, prompt: {},
}
"""Family to a function that draws its kwargs from a generator and the prompt that the constraint will stand in."""
