"""The phrases that `heuristics.py` searches: in responses to reject, and in prompts that exempt these.

English and Chinese are covered well; Spanish, French, German, Portuguese, Russian and Japanese by their stock phrases.
"""

import re

WORDS = re.IGNORECASE | re.VERBOSE

ASKS_FOR_TEXT = re.compile(
    r"""\b(?: write | compose | draft | explain | describe | discuss | elaborate | essay
      | in\ detail | step[- ]by[- ]step | escrib[ae] | explica | describe | schreib | erkläre? | beschreib | écri[st]
      | expliqu | décri[st] | escreva | explique | напиши | опиши | объясни | расскажи )
    | 解释|说明|描述|介绍|写一[篇个封段]|作文|详细|阐述|論じ|説明|書いて""",
    WORDS,
)
ASKS_FOR_LITTLE = re.compile(
    r"""\b(?: one | single | two | three | few | fewer | \d+ ) [ -] (?:\w+[ ])? (?: word | letter | character | line
      | sentence | number | phrase | term | emoji )
    | \b(?: briefly | brief | short | concise | title | headline | slogan | tagline | caption | names? | haiku | regex
      | regular\ expression | one-liner | command | expression | equation | formula | query | function | code
        | program
      | script | tweet | emoji | sentence | phrase | word | only | just | classify | complete | fill | analogy
        | yes\ or\ no | true\ or\ false | breve | kurz | court | corto
      | кратко | одн\w+\ (?:слов|предлож) )\b
    | no\ (?:explanation|commentary) | n['’]t\ explain
    | 一个词|一句|不必|不用|无需|不要|只[需要用]|[几两二三四五\d]个字|简短|简要|标题|口号|名字|代码|公式|函数
        |一言|短く""",
    WORDS,
)
"""Limits on a text in the same request: "write a title", "explain in one word"."""

DECLINES = re.compile(
    r"""(?: can(?:no|['’])?t | can\ not | won['’]t | will\ not | unable\ to | not\ able\ to | not\ comfortable )
        (?:\s+(?: \w+ly | to | be | able ))* \s+
        (?: help(?!\s+(?:but\b|\w+ing\b)) | helping | assist | provid | fulfil | comply | creat | generat
        | answer | writ
          | do\ (?:that|this|it|so|what) | support | engag | participat | discuss | shar | offer | give | giving
          | complet | access | continu | respond | brows | open | view | see\b | translat | recommend | advis | mak
          | predict | process | perform | produc | pretend | tell | explain | describ | summari | identify | determin
          | fulfill | promot | endors )
    | \b(?:must|have\ to|going\ to)\s+(?:\w+ly\s+)?decline | \bdo(?:n['’]t|\s+not)\s+(?:know\b|have\s+(?:access|enough
        |the\s+(?:ability|capability|information)|any\s+information|personal|feelings|opinions|real))
    | 无法|不能|没法|不便|没有能力|拒绝|不知道|没有足够""",
    WORDS,
)
"""Phrases that decline a request. "I can't help but smile" and "I can't wait" decline nothing."""
FOREIGN_REFUSAL = re.compile(
    r"""\W*(?: lo\ siento | lo\ lamento | (?:je\ suis\ )?(?:vraiment\ )?désolée? | (?:es\ )?tut\ mir\ leid
      | entschuldig\w* | desculpe | sinto\ muito | lamento | mi\ dispiace | извините | простите | к\ сожалению
      | 申し訳 | すみません | 죄송 ) [^.!?。！？\n]{0,60}?
    (?: no\ puedo | no\ me\ es\ posible | ne\ (?:peux|suis|puis) | kann\b[^.!?\n]{0,60}\bnicht | não\ (?:posso
        |consigo)
      | non\ posso | не\ (?:могу|имею) | できません|できない|お答え|お手伝い | 수\ 없 )""",
    WORDS,
)
ABOUT_REFUSING = re.compile(
    r"""refus | \bdeclin\w*\ (?:an?|the|his|her|my|this|that|their|someone|it) | politely | reject
        | \bturn\w*\ .{0,30}down
      | \bsay\w*\ no\b | \bsorry\b | apolog | condolen | sympath | excuses? | resign
      | 拒绝|婉拒|推辞|道歉|抱歉|对不起|谢绝|回绝 | rechaz | disculp | ablehn | entschuld | извин | отказ | 断り
        |謝罪""",
    WORDS,
)

MAKERS = "openai|anthropic|google|deepmind|meta|microsoft|alibaba|baidu|mistral|deepseek|zhipu|moonshot|xai|tencent"
SELF = re.compile(
    rf"""\bas\s+an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model)
        (?=\s*[,.:;)—] | \s+(?:language|assistant|model|system|chatbot|program|created|developed|trained|by|i)\b)
    | \bi(?:\s+am|['’]m)\s+(?:just\s+|only\s+|actually\s+|merely\s+)?(?:
        an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model|chatbot)\b
          (?!\s+(?:and\s+\w+\s+)?(?:researcher|engineer|student|professor|enthusiast|developer|scientist|expert
        |ethicist
            |consultant|artist|teacher|lecturer|startup|company|designer|specialist))
        | chat-?gpt\b | gpt-?\d | claude(?=\s*[,.!]|\s+(?:by|from|and|an?)\b) | gemini(?=\s*[,.!]) | bard(?=\s*[,.!])
        | qwen\b | deepseek\b | llama\s?\d? (?=[,.!]) | ernie\ bot )
    | \bi\s+(?:was|am|have\ been|['’]ve\ been)\s+(?:\w+\s+)?(?:developed|created|trained|made|built|designed)\s+by\s+
        (?:the\ \w+\ at\ )?(?:{MAKERS})\b
    | \bmy\s+(?:last\s+)?(?:knowledge|training)\s+(?:cut-?\s?off|data|update) | \b(?:my
        |openai['’]?s)\s+(?:use-case|content)\ polic
    | \bi\s+(?:do\s+not|don['’]t)\s+have\s+(?:personal\s+)?(?:feelings|emotions|experiences|a\ physical\ body
        |opinions)
        (?:\s+(?:or|and)\s+\w+)*[^.\n]{{0,40}}\b(?:as|since\ i['’]m|because\ i['’]m)\s+an?\s+(?:ai|machine|program)
    | 作为(?:一个|一名|一款|一种)?(?:AI|人工智能|大?型?语言模型|聊天机器人)(?!工程|研究|专[家业]|领域|行业|从业
        |开发|产品经理|时代|技术)
    | 我(?:只?是)(?:一个|一名|一款)?(?:由\w{{2,12}}(?:开发|训练|研发)的)?\s*(?:AI|人工智能|ChatGPT|GPT
        |大?型?语言模型|文心一言|通义千问|聊天机器人)
        (?!工程|研究|专[家业]|领域|行业|从业|开发|产品经理|爱好)
    | 我是由\s*(?:OpenAI|百度|阿里|腾讯|谷歌|智谱|深度求索)|我的(?:知识|训练数据)(?:库)?(?:截止|更新)
    | \bcomo\s+(?:una?\s+)?(?:ia\b|inteligencia\ artificial|inteligência\ artificial|modelo\s+de\s+l[ie]ng)
    | \ben\s+tant\s+qu(?:e\s+|['’])(?:ia\b|intelligence\ artificielle|modèle\s+de\s+langage|assistant\s+ia)
    | \bals\s+(?:eine?\s+)?(?:ki\b(?:-\w+)?|künstliche\s+intelligenz|(?:großes\s+)?sprachmodell)
        (?!\s*(?:forscher|entwickler|experte))
    | как\s+(?:большая\s+)?(?:языковая\s+модель|ии\b|искусственный\s+интеллект)
    | (?:AI|人工知能|言語モデル)(?:アシスタント)?(?:として|なので|ですので)""",
    WORDS,
)
"""A model speaks of itself. "As an AI researcher" and "Android was made by Google" do not count."""
ABOUT_MODELS = re.compile(
    r"""\bAIs?\b | artificial\ intelligence | chat\s?bots? | chat-?gpt | \bgpt | openai | anthropic | \bclaude\b
        | gemini
      | \bbard\b | llama | language\ models? | \bllms?\b | \bsiri\b | \balexa\b | robots? | androids?
        | virtual\ assistant
      | (?:who|what|how|where|when)\ (?:old\ )?(?:are|were|is|did|made|created|trained|built|made)\ (?:you|your)
        | \bare\ you\b
      | do\ you\ (?:have|feel|think|know|like|love|want|dream|remember|ever) | yourself | your\ (?:name|creator
        |maker|knowledge|opinion|favou?rite)
      | can\ you\ (?:feel|think|see|hear|remember)
      | 人工智能|机器人|语言模型|(?<![A-Za-z])AI(?![A-Za-z])|你是谁|你叫|你的名字|你是|您是|你觉得|你最?喜欢
        |你自己|让你感?到?|你擅长|你有什么
      |你(?:会|能|在|想要?|可以)[做干]什么|你能接受
      | \bIA\b | \bKI\b | ИИ | eres\b | es-tu | bist\ du | \bты\b | あなた | künstliche | inteligencia
        | intelligence\ artificielle""",
    WORDS,
)

ABOUT_LANGUAGES = re.compile(
    r"""translat | translit | romani[sz]e | pinyin | \bin\ (?:english|chinese|mandarin|japanese|korean|russian
        |arabic|hindi
      |spanish|french|german|hebrew|thai|greek|ukrainian|persian|urdu|bengali) | \b(?:english|chinese|mandarin
        |japanese|korean|russian
      |arabic|hindi|hebrew|thai|greek|ukrainian|bulgarian|persian|urdu|bengali|tamil|telugu|marathi|nepali
        |punjabi|gujarati|kannada)\b
      | traduc | traduz | tradui | übersetz | перевед | перевод | англ | китайск | japon | chino | chinois
        | chinesisch | englisch
      | 翻译|译成|译为|英文|英语|英汉|中文|汉语|日语|日文|韩语|法语|德语|俄语|西班牙语|拼音|外语|英訳|和訳|翻訳
        |英語|中国語|번역|영어
      | 代码|函数|编程|程序|脚本|命令|正则|\b(?:python|java|javascript|sql|html|css|bash|shell|json|latex|regex
        |c\+\+|rust
        |golang|php|linux)""",
    WORDS,
)
"""Prompts that ask for another language, or for code, which is Latin with any prompt."""

ABOUT_REPEATING = re.compile(
    r"""\brepeat | \brepetit | \becho\b | verbatim | word\ for\ word | \bsay\ (?:exactly|the) | \bcopy\b
        | \bparrot | \d\ times
      | \b(?:ten|twenty|fifty|hundred|thousand)\ times | over\ and\ over | lorem\ ipsum | as[ -]is\b | proofread
        | correct\ (?:the|this|any)
      | grammar | capitali[sz]e | uppercase | lowercase | paraphrase | punctuat
      | 重复|复述|\d遍|[十百千]遍|原样|照抄|复制|重説|繰り返 | repit | répèt | wiederhol | повтори | repita
        | ripeti""",
    WORDS,
)
ABOUT_VERSE = re.compile(
    r"""\bsongs?\b | lyric | poem | poetr | \brap\b | chorus | refrain | rhym | \bvers(?:e|es)\b | chant
        | mantra | hymn | sonnet | villanelle
      | pantoum | ballad | prayer | litany | anaphora | 歌|诗|词牌|canci[oó]n | poema | gedicht | lied\b | chanson
        | poème | песн | стих | 俳句""",
    WORDS,
)
"""Forms that repeat lines by rule."""
ABOUT_SIGNS = re.compile(
    r"punctuat|symbol|\bsigns?\b|\bmark\b|character|ascii|emoticon|标点|符号|字符|morse|braille", WORDS
)
NO_OUTPUT = re.compile(r"<?\bno\s?output\b>?|[<\[(]\s*(?:empty|blank|none|null)\s*[>\])]", re.IGNORECASE)
"""How Self-Instruct data write an empty output."""
LABELS = re.compile(
    r"^[ \t#*>]*(?:instruction|prompt|question|request|user|human|input|task|q|指令|问题|题目|用户|提问)s?[ \t*]*[:：]"
    r"|^[ \t#*>]*(?:instruction|prompt|question|input|response|answer|assistant|output|回答|答案)s?[ \t*]*(?:[:：]|$)",
    re.IGNORECASE | re.MULTILINE,
)
HANGING = re.compile(
    r"(?<![\w.])(?:the|an|and|or|but|because|which|whose|their|its|your|than|if|whether|into|el|los|las|del|und|oder"
    r"|der|les|des|et|e|и|или|что)$|(?<!vitamin)(?<![A-Z])\sa$|(?:的|和|与|或|因为|但是|以及|并且|而且|例如|比如)$"
)
"""Words that no sentence ends with."""
