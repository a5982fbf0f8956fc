# ruff: noqa: E501
"""Answers written by hand for each of the 25 families: (kwargs, answers that hold, answers that do not)."""

from typing import Any

Case = tuple[dict[str, Any], list[str], list[str]]

AT_LEAST, LESS = "at least", "less than"
HINDI = "यह घर एक लंबी सड़क पर है और बच्चे कुत्ते के साथ खेलते हैं।"
MARATHI = "हे घर एका लांब रस्त्यावर आहे आणि मुले कुत्र्याबरोबर खेळत आहेत."
NEPALI = "यो घर लामो सडकमा छ र बच्चाहरू कुकुरसँग खेल्दै छन्।"
GERMAN = "Das Haus steht an einer langen Straße, und die Kinder spielen mit dem Hund."
CODE = "```python\n- a\n* b\n- c\n```\n"

CASES: dict[str, list[Case]] = {
    "keywords:existence": [
        (
            {"keywords": ["cat", "river"]},
            ["The cat crossed the river.", "CAT!\nRiver?", "A cat's river", "**cat** and _river_", "看 cat 和river吧"],
            ["education by the river", "The cat sat.", "cats and rivers", "cat river2"],
        ),
        ({"keywords": ["编程"]}, ["我爱Python编程。", "编程"], ["我爱程编", "programming"]),
        ({"keywords": ["C++", "a.b"]}, ["C++ has no a.b here"], ["C and a.b", "C++ axb", "Xa.b and C++"]),
        ({"keywords": ["ice cream"]}, ["I like Ice Cream."], ["I like ice-cold cream."]),
    ],
    "keywords:forbidden_words": [
        (
            {"forbidden_words": ["die", "can"]},
            ["The candle dies.", "He died.", "You cannot."],
            ["Never say die", "CAN you?", "(can)", "all is “die”."],
        ),
        ({"forbidden_words": ["学校"]}, ["我去上班。"], ["我在学校里。"]),
    ],
    "keywords:frequency": [
        (
            {"keyword": "the", "relation": LESS, "frequency": 2},
            ["Then there was the other one.", "Nobody."],
            ["The cat and the dog."],
        ),
        (
            {"keyword": "war", "relation": AT_LEAST, "frequency": 3},
            ["War, war; WAR", "war war war war"],
            ["war warden warm toward", "war and War"],
        ),
    ],
    "keywords:letter_frequency": [
        ({"letter": "o", "let_relation": AT_LEAST, "let_frequency": 3}, ["Oho, o", "foo bob"], ["foo", "0000"]),
        ({"letter": "#", "let_relation": AT_LEAST, "let_frequency": 4}, ["# a\n### b"], ["# a\n## b"]),
        ({"letter": "T", "let_relation": LESS, "let_frequency": 2}, ["One T.", "none"], ["Tt"]),
    ],
    "language:response_language": [
        ({"language": "hi"}, [HINDI, f"Python: {HINDI}"], [MARATHI, NEPALI, GERMAN, "The house is on a long road."]),
        ({"language": "mr"}, [MARATHI], [HINDI, NEPALI]),
        ({"language": "ne"}, [NEPALI], [HINDI, MARATHI]),
        ({"language": "de"}, [GERMAN, f"{GERMAN}\n```python\nfor the in of: print(to)\n```"], [HINDI, "你好，世界。"]),
        ({"language": "cs"}, ["Dům stojí v dlouhé ulici a děti si hrají se psem."], [GERMAN]),
        ({"language": "kn"}, ["ನಾನು ಶಾಲೆಗೆ ಹೋಗುತ್ತೇನೆ."], ["நான் பள்ளிக்குச் செல்கிறேன்."]),
        ({"language": "ta"}, ["நான் பள்ளிக்குச் செல்கிறேன்."], ["ನಾನು ಶಾಲೆಗೆ ಹೋಗುತ್ತೇನೆ."]),
        ({"language": "zh"}, ["我爱 Python 编程。", "他说：“Hello!”然后走了。"], ["東京は日本の首都です。", "안녕하세요"]),
        ({"language": "ja"}, ["東京は日本の首都です。"], ["东京是日本的首都。"]),
        ({"language": "ur"}, ["یہ گھر ایک لمبی سڑک پر ہے اور بچے کتے کے ساتھ کھیلتے ہیں۔"], ["البيت في شارع طويل من هنا إلى هناك."]),
        ({"language": "pt"}, ["A casa fica em uma rua longa e as crianças brincam com o cão."], ["La casa está en una calle y los niños juegan con el perro."]),
        ({"language": "vi"}, ["Ngôi nhà nằm trong một con phố dài và các em bé chơi với chó."], [GERMAN]),
        ({"language": "sw"}, ["Watoto wanacheza na mbwa katika nyumba ya mwalimu, lakini si kila siku."], [GERMAN]),
        ({"language": "fi"}, ["Talo on kadun varrella ja lapset eivät ole siellä, mutta koira on."], [GERMAN]),
    ],
    "length_constraints:number_sentences": [
        (
            {"relation": AT_LEAST, "num_sentences": 2},
            [
                "One. Two.", "Really?! Yes", "Stop!\n\nGo on", "你好。再见！", "- Buy milk\n- Buy bread",
                "1. Boil it.\n2. Eat it.", "it is cold. we stay home.", "यह घर है। वह नहीं।", "I said no. “Why not?” He left.",
            ],
            [
                "Use fruit, e.g. Apples or pears.", "Mr. Smith met Dr. J. R. Jones in St. Ives", "It costs 3.14 dollars at 5 p.m. today.",
                "“Really?” she asked.", "Well... maybe", "# A Heading. With stops.\nOne sentence only.", "**A bold title**\nOne sentence.",
                "One.\n```\nTwo. Three. Four.\n```", "wait for it ... it works", "use fruit, i.e. apples, pears etc. and so on",
            ],
        ),
        (
            {"relation": LESS, "num_sentences": 3},
            ["One! Two?", "Visit example.com or v1.2.3 now. Done.", "Roses are red\nviolets are blue"],
            ["One. Two. Three.", "a\n\nb\n\nc", "一。二。三。"],
        ),
    ],
    "length_constraints:number_paragraphs": [
        (
            {"num_paragraphs": 2},
            ["a\n***\nb", "a\nb\n\n***\n\nc\n", "***\na\n***\nb\n***", "***very*** bold\n* * *\nb"],
            ["a\n\nb", "a\n***\n\n***\nb", "a\n***\nb\n***\nc", "a *** b", "a\n---\nb"],
        ),
    ],
    "length_constraints:number_words": [
        (
            {"relation": AT_LEAST, "num_words": 3},
            ["one two three", "我爱你", "well-known don't 3.5", "यह हिन्दी है", "I 爱 you"],
            ["one two", "- one\n- two\n***", "我爱", "well-known don't", "one — two !"],
        ),
        ({"relation": LESS, "num_words": 3}, ["one two", "*** ok", "हिन्दी है"], ["a b c", "一二三"]),
    ],
    "length_constraints:nth_paragraph_first_word": [
        (
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "summary"},
            ["a\n\nSummary: b", "a\nb\n\n**SUMMARY** b", "a\n \n“Summary” b", "\n\na\n\n\n\nsummary"],
            ["a\nSummary b", "summary\n\na", "a\n\nSummaryless b", "a\n\nThe summary", "a\n\nsummary\n\nc", "a"],
        ),
    ],
    "detectable_content:number_placeholders": [
        (
            {"num_placeholders": 2},
            ["Dear [name], at [address]", "尊敬的[姓名]，来自[地址]", "[name] [name]"],
            ["Dear [name]", "[1] and [2]", "- [ ] a\n- [x] b", "[site](http://a.b) [name]", "a[ij] + b[jk]", "[] []", "[a b][c d]"],
        ),
    ],
    "detectable_content:postscript": [
        (
            {"postscript_marker": "P.S."},
            ["Hi.\n\nP.S. Bye", "Hi.\np.s. bye", "Hi.\n**P.S.** Bye", "Hi.\nPS: bye", "Hi.\nP. S. bye", "Hi.\nP.S.\nBye"],
            ["Hi. Bye", "P.S. Bye", "Hi.\nP.P.S. Bye", "Hi.\nP.S.", "Hi, see the P.S. below", "Hi.\nPSA: drink"],
        ),
        (
            {"postscript_marker": "P.P.S"},
            ["Hi.\nP.S. Bye\nP.P.S. Really", "Hi.\nP.P.S really"],
            ["Hi.\nP.S. Bye", "P.P.S. Bye", "Hi.\nP.P.S.T. Bye"],
        ),
    ],
    "detectable_format:number_bullet_lists": [
        (
            {"num_bullets": 3},
            ["* a\n* b\n* c", "- a\n  - b\n+ c", f"{CODE}* a\n* b\n* c", "- **a**\n- b\n---\n- c", "> - a\n> - b\n- c"],
            ["* a\n* b", "- a\n  - b\n  - c\n- d", CODE, "* a\n* b\n* * *", "1. a\n2. b\n3. c", "*a*\n*b*\n*c*", "-a\n-b\n-c"],
        ),
    ],
    "detectable_format:constrained_response": [
        (
            {},
            ["My answer is yes.", "I think so. My answer is maybe.", "“my answer is no.”", "My answer\nis no."],
            ["yes", "My answer is yes", "My answer is yes. My answer is no.", "My answer is: no."],
        ),
    ],
    "detectable_format:number_highlighted_sections": [
        (
            {"num_highlights": 2},
            ["*a* and **b c**", "* item *x*\n* item *y*", "这是*重点*和**另一个**。", "***a*** *b*"],
            ["*a*", "* a\n* b", "2*3*4 and 5*6*7", "** a ** * b *", "```\n*a* *b*\n```", "*a\nb* *c", "_a_ _b_", "****"],
        ),
    ],
    "detectable_format:multiple_sections": [
        (
            {"section_spliter": "SECTION", "num_sections": 2},
            ["SECTION 1\na\nSECTION 2\nb", "## SECTION 1: a\n**SECTION 2** b", "SECTION I\na\nSECTION II\nb"],
            ["SECTION 1\na\nSECTION 1\nb", "See SECTION 1 and SECTION 2", "section 1\nsection 2", "SECTION 1\nSECTIONS 2", "SECTION 1"],
        ),
        ({"section_spliter": "Day", "num_sections": 2}, ["Day 1: a\nDay 2: b\nDay 3: c"], ["Day one\nDay two"]),
    ],
    "detectable_format:json_format": [
        (
            {},
            ['{"a": [1, 2]}', '```json\n{"a": "b"}\n```', " [] ", '{"n": ' + "1" * 5000 + "}", '```\n[{"x": "```"}]\n```'],
            ['Here: {"a": 1}', "{'a': 1}", '{"a": NaN}', '{"a": 1,}', '"text"', "42", "[" * 100_000, '{"a": 1} {"b": 2}', "```json```"],
        ),
    ],
    "detectable_format:title": [
        (
            {},
            ["<<A poem>>\nroses", "text <<题目>> text", "<<<Deep>>>"],
            ["<A poem>", "<<>>", "<< >>", "<<a\nb>>", "# A poem", "cout << a;"],
        ),
    ],
    "combination:two_responses": [
        (
            {},
            ["a\n******\nb", "a ****** b", "******\na\n******\nb\n******"],
            ["a", "a\n******\na", "a\n******\n", "a\n***\nb", "a\n******\nb\n******\nc", "a\n*******\nb"],
        ),
    ],
    "combination:repeat_prompt": [
        (
            {"prompt_to_repeat": "Write a poem. Use 3 lines."},
            ["Write a poem. Use 3 lines.\n\nRoses", "write a poem.\nuse 3 lines. Roses"],
            ["Roses", "Write a poem. Use 3 lines.", "Sure! Write a poem. Use 3 lines. Roses", "Write a poem. Use three lines. Roses"],
        ),
    ],
    "startend:end_checker": [
        (
            {"end_phrase": "That is all."},
            ["Bye. That is all.", "Bye.\n**that is\nall.**\n", "“Bye. That is all.”"],
            ["That is all. Bye.", "That is all", "Bye. That is all. :)"],
        ),
        ({"end_phrase": "in India."}, ["He lives in India."], ["He lives within India.", "in india"]),
        ({"end_phrase": "What's next?"}, ["So: what’s next?"], ["What's next? Nothing."]),
        ({"end_phrase": "再见。"}, ["好的，再见。"], ["再见。好的"]),
    ],
    "startend:quotation": [
        (
            {},
            ['"All of it."', ' "He said "no" and left." \n', "“All of it.”", "“He said “no” to me.”"],
            ["All of it.", '"Half of it', "“Hello,” she said, “bye.”", "'All of it.'", '"', '""', '"mixed”', 'x "y"'],
        ),
    ],
    "change_case:capital_word_frequency": [
        (
            {"capital_relation": AT_LEAST, "capital_frequency": 2},
            ["NASA and the U.S. agree", "COVID-19 is BAD", "I am A", "STATE-OF-THE-ART GEAR", "NASA’s FBI"],
            ["NASA agrees", "the U.S.A. here", "None At All", "123 456", "你好 世界", "STATE-OF-THE-ART"],
        ),
        ({"capital_relation": LESS, "capital_frequency": 2}, ["All small but NASA"], ["NASA and FBI"]),
    ],
    "change_case:english_capital": [
        (
            {},
            ["THE CAT IS IN THE HOUSE, AND IT SLEEPS.", "IT IS 5 O'CLOCK NOW, AND THE TRAIN IS LATE!"],
            ["The cat is in the house.", "THE CAT IS IN THE HOUSe", "LA CASA ESTÁ EN UNA CALLE Y LOS NIÑOS JUEGAN CON EL PERRO", "123", "你好"],
        ),
    ],
    "change_case:english_lowercase": [
        (
            {},
            ["the cat is in the house, and it sleeps.", "it's 5 o'clock and that is it"],
            ["The cat is in the house.", "das haus ist in einer langen straße und die kinder sind da", "THE CAT IS IN", "123"],
        ),
    ],
    "punctuation:no_comma": [
        ({}, ["No pause here; none at all.", "一句话。"], ["Well, yes", "1,000", "你好，世界", "苹果、梨", "مرحبا، أهلا"]),
    ],
}  # fmt: skip
UNDECIDED: list[tuple[str, dict[str, Any], str]] = [
    ("language:response_language", {"language": "de"}, "OK."),
    ("language:response_language", {"language": "xx"}, "Dům stojí v dlouhé ulici a děti si hrají se psem."),
    ("language:response_language", {"language": "ja"}, "東京"),
    ("language:response_language", {"language": "id"}, "Kereta terlambat lagi."),
    ("language:response_language", {"language": "de"}, "Hello 你好"),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "ฉันไปโรงเรียน วันนี้อากาศดี"),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 5}, "ฉันไปโรงเรียน"),
    ("change_case:english_capital", {}, "HOLA AMIGO"),
    ("change_case:english_capital", {}, "IT IS 5 O'CLOCK!"),
    ("change_case:english_lowercase", {}, "ok."),
]
"""What cannot be known: (family, kwargs, answer)."""
SENTENCES = {
    "ar": "هذا البيت في شارع طويل من هنا إلى هناك.", "bg": "Къщата е на дълга улица и децата си играят с кучето.",
    "bn": "বাড়িটি একটি লম্বা রাস্তায়।", "de": GERMAN, "es": "La casa está en una calle y los niños juegan con el perro.",
    "fa": "این خانه در خیابانی بلند است و بچه‌ها با سگ بازی می کنند.", "fr": "La maison est dans une rue et les enfants jouent.",
    "fi": "Talo on kadun varrella ja lapset eivät ole siellä, mutta koira on.", "gu": "ઘર લાંબી શેરીમાં છે.", "he": "הבית ברחוב ארוך.",
    "hi": "यह घर एक लंबी सड़क पर है।", "it": "La casa è in una strada e i bambini giocano con il cane.", "ja": "家は長い通りにあります。",
    "kn": "ಮನೆ ಉದ್ದವಾದ ಬೀದಿಯಲ್ಲಿದೆ.", "ko": "집은 긴 거리에 있습니다.", "ml": "വീട് നീണ്ട തെരുവിലാണ്.", "mr": "हे घर रस्त्यावर आहे आणि ते लांब आहे.",
    "ne": "यो घर सडकमा छ र त्यो लामो छ।", "pa": "ਘਰ ਲੰਬੀ ਗਲੀ ਵਿੱਚ ਹੈ।", "pl": "Dom jest na długiej ulicy i dzieci nie są tam.",
    "pt": "A casa fica em uma rua e as crianças brincam com o cão.", "ru": "Дом стоит на улице, и дети играют с собакой, но это не всё.",
    "sw": "Nyumba iko katika mtaa na watoto wanacheza na mbwa.", "ta": "வீடு நீண்ட தெருவில் உள்ளது.", "te": "ఇల్లు పొడవైన వీధిలో ఉంది.",
    "uk": "Будинок стоїть на вулиці, і діти граються, але це ще не все.", "ur": "یہ گھر ایک لمبی سڑک پر ہے۔",
    "vi": "Ngôi nhà nằm trong một con phố và các em bé chơi.", "zh": "房子在一条长街上。",
}  # fmt: skip
"""A sentence in each language that is drawn."""
