"""Which language a text is in, from its script and its most frequent words.

No library is used. The languages are those of IFEval (arXiv 2311.07911), Chinese and Greek. Most scripts identify the
language; where several languages share a script, function words decide. A text that is too short, mixed or in another
language gives None. Fenced code is left out.
"""

import string
from collections import Counter

FENCES = ("```", "~~~")
DOMINANT = 0.6
"""The share of all letters that a script needs: answers in Hindi or Chinese quote Latin names."""
FEWEST_HITS, LEAST_SHARE, LEAD = 2, 0.08, 1.25
"""Function words needed, their share of all words, and how far ahead of the next language. Running text has 0.2 to
0.5 of them, so the share is low enough for lists and high enough for a language that is not in the table."""

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
    "Greek": "el", "Hebrew": "he", "Bengali": "bn", "Gurmukhi": "pa", "Gujarati": "gu", "Tamil": "ta", "Telugu": "te",
    "Kannada": "kn", "Malayalam": "ml", "Thai": "th", "Hangul": "ko", "Kana": "ja", "Han": "zh",
}  # fmt: skip
NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "gu": "Gujarati", "he": "Hebrew",
    "hi": "Hindi", "it": "Italian", "ja": "Japanese", "kn": "Kannada", "ko": "Korean", "ml": "Malayalam",
    "mr": "Marathi", "ne": "Nepali", "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese", "ru": "Russian",
    "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
FUNCTION_WORDS = {
    "Latin": {
        "en": "the and of to is in that it for was with this are be not you we they have has from by an or but what "
        "your my their his her will can if there which when who how should would these its as i at on do",
        "es": "el los las del y con una un es en por para que de lo su al pero muy más como está son ser este esta sus "
        "también cuando yo mi porque sin sobre hay le nos fue tiene puede desde entre todo hasta",
        "pt": "o os do da dos das e com uma um é em por para que de não ao mas muito na no nos mais como está são ser "
        "seu sua também quando eu foi você pelo pela isso este esta tem pode entre até à",
        "fr": "le les des du et est en une un dans que qui de la pour sur pas avec ce cette au aux vous nous il elle "
        "sont par plus mais ne se son sa ses être je ou où leur comme très à ces l d c",
        "de": "der die das und ist in den dem des ein eine einen einer nicht mit zu von für auf sich auch es sie ich "
        "wir im an als wie aus bei nach oder aber sind wird wurde war werden haben hat kann zum zur",
        "it": "il lo gli di del della dei delle e è un una in con per che non si su al alla nel nella sono da come più "
        "ma questo questa anche ha ho mi ti ci suo sua loro essere i le la l dell",
        "pl": "i w na z do nie się że jest to o jak dla po od co ale za przez są oraz może być jego tym ten który "
        "która tak tylko już lub czy ich był była mi te ze jako",
        "vi": "và là của có trong được một các cho không với những này người đã để khi từ đến như về tôi bạn nó hay "
        "thể cũng nhiều rất vào ra sẽ phải",
        "sw": "na ya wa kwa ni katika za la kuwa cha hii hiyo kama vya lakini pia au si yake yangu wao huu hizi ili "
        "sana mimi wewe yako kwamba zaidi baada kila bila watu hivyo",
        "fi": "ja on ei että se oli hän mutta myös kun ovat tai joka sen en olen voi kuin niin tämä jos minä sinä "
        "hänen jotka mitä vain sekä olla ole ovat sinun kanssa mukaan tämän siitä",
    },
    "Cyrillic": {
        "ru": "и в что это как для или но он она они вы мы его её их был была было при также чтобы когда я если очень "
        "быть все всё где так ещё от из с по может у к только не на",
        "uk": "і й в що це як для або але він вона ви ми його її їх був була було при також щоб коли я якщо дуже бути "
        "всі так ще від із з та є до може у тільки не на",
        "bg": "и в че това като за или но той тя вие ние да се са ще със е от до който която при също когато аз ако "
        "много бъде всички така още си по може ги не на с към през без",
    },
    "Devanagari": {
        "hi": "है हैं और के का की में से को यह पर ने भी नहीं एक कि तो था थी थे हो कर लिए या वह इस जो होता करना आप मैं हम",
        "mr": "आहे आहेत आणि हे च्या ते व मध्ये नाही हा ही एक त्या या की तर होते होता आपण मी तो असे किंवा पण जे साठी करा केले",
        "ne": "छ छन् र को मा हो यो गर्न लागि पनि हुन्छ थियो तपाईं तपाईंको छैन भने अनि मेरो तर हुन् एक म यस भएको गर्नुहोस् वा",
    },
    "Arabic": {
        "ar": "في من على إلى أن هذا هذه التي الذي ما لا مع عن هو هي كان كانت أو ثم قد لم كل بعد بين حتى إن لكن أنا ذلك",
        "fa": "و در به از که این را است با برای آن های می یک من تو ما شما هم یا اما تا بر کرد شد شود بود هر خود باید",
        "ur": "ہے اور کے میں کی کا سے کو ہیں یہ پر نے بھی نہیں ایک کہ تو تھا تھی تھے ہو کر لیے یا وہ اس جو آپ ہم مجھے",
    },
}
"""Some of the most frequent words of each language that shares its script with others."""
WORDS = {
    script: {code: frozenset(words.split()) for code, words in of.items()} for script, of in FUNCTION_WORDS.items()
}
EDGES = string.punctuation + "“”‘’«»„…。，、！？।۔،؛؟–—¿¡*_"


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
    """Return the two-letter code of the language of a text; None if it is not certain."""
    text = prose(text)
    script = dominant_script(text)
    if script is None or script in ONE_LANGUAGE:
        return ONE_LANGUAGE.get(script or "")
    words = [word.strip(EDGES) for word in text.casefold().replace("’", " ").replace("'", " ").split()]
    counts = Counter(words)
    hits = {code: sum(counts[word] for word in known) for code, known in WORDS[script].items()}
    (best, first), (_, second) = sorted(hits.items(), key=lambda pair: -pair[1])[:2]
    certain = first >= FEWEST_HITS and first >= LEAST_SHARE * len(words) and first >= LEAD * second
    return best if certain else None


def is_chinese(text: str) -> bool:
    """Return whether a text is Chinese, also where it is mixed with as much Latin: 自动给 commit 增加 message."""
    text = prose(text)
    script, counts = dominant_script(text), count_letters(text)
    return script == "Han" or (script is None and counts["Han"] > counts["Kana"])
