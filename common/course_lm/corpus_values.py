"""What fills the corpus' templates: names, places, things and numbers, each in one split only.

A value belongs to the held-out split when its checksum says so, which keeps the two splits apart for every name,
number pair or word that is drawn, however many there are.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from random import Random

TRAIN, HELD_OUT = "train", "held_out"

NAMES = """Anna Ben Clara David Emma Felix Greta Hugo Ida Jonas Kate Leo Mia Nils Olga Paul Rosa Sam Tina Uma Victor
Wanda Yusuf Zoe Amir Bella Carlos Diana Elias Fiona George Hanna Ivan Julia Karim Lena Marco Nora Oscar Petra Quinn
Rafael Sofia Thomas Ursula Vera Walter Xenia Yara Zeno Alice Boris Celia Dario Edith Farid Gloria Henry Irene Jacob
Laura Martin Nadia Otto Paula Robert Sarah Tariq Viola William Aisha Bruno Chloe Dmitri Elena Frank Hassan Ingrid
Jasper Kira Lukas Magda Niko Olivia Pablo Rita Simon Tara Vincent Wendy Omar Lily Adam Eve Max Stella Noah""".split()
CITIES = """Oslo Paris Berlin Madrid Lima Cairo Delhi Tokyo Seoul Hanoi Rome Vienna Prague Warsaw Athens Dublin Lisbon
London Boston Chicago Denver Seattle Toronto Quito Bogota Nairobi Lagos Accra Tunis Dakar Sydney Perth Auckland Beijing
Shanghai Shenzhen Chengdu Hangzhou Taipei Manila Jakarta Bangkok Singapore Mumbai Karachi Tehran Ankara Sofia Zagreb
Helsinki Stockholm Geneva Zurich Munich Hamburg Lyon Porto Naples Krakow Riga Vilnius Tallinn Minsk Kyiv""".split()
ANIMALS = """cat dog fox owl bear wolf hare mouse horse goat duck crow frog turtle rabbit donkey sheep otter badger
squirrel hedgehog sparrow eagle swan deer beaver lizard snail whale seal parrot raven heron robin mole""".split()
COLOURS = """red blue green yellow white black brown purple orange grey pink silver golden turquoise violet crimson
beige navy olive maroon""".split()
OBJECTS = """lamp chair table clock book cup kettle mirror basket ladder hammer rope lantern wheel drum flute map key
box coin ring bell candle blanket umbrella scarf bicycle radio camera guitar piano painting knife pot pan spoon bucket
broom pillow carpet vase bottle jar shelf desk notebook pencil backpack wallet watch hat coat boot glove tent kite
boat sled violin compass telescope""".split()
FOODS = """soup bread rice pasta cheese cake salad fish pizza apple pear plum cherry honey tea coffee milk juice yoghurt
porridge curry stew pancake dumpling noodle tomato potato carrot onion pepper melon grape peach""".split()
JOBS = """teacher nurse baker farmer pilot painter lawyer doctor driver cook engineer gardener librarian carpenter
plumber dentist tailor singer writer sailor mechanic architect biologist chemist translator photographer waiter
electrician judge fisherman""".split()
PRODUCTS = (
    """pumps lamps engines tyres sensors batteries shoes printers tractors windows bicycles drones toys pianos
tents cameras chairs boats clocks ovens lenses cables robots solar panels kitchen knives rain coats""".replace(
        "solar panels", "solar_panels"
    )
    .replace("kitchen knives", "kitchen_knives")
    .replace("rain coats", "rain_coats")
    .split()
)
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
CURRENCIES = "dollars euros pounds yen yuan francs rupees pesos kroner won".split()
TOPICS = """budget hiring roadmap training safety design release review sales research travel planning quality support
marketing security testing logistics strategy onboarding pricing recruiting migration outage""".split()
TONES = "sunny rainy cloudy windy snowy foggy stormy".split()
SYLLABLES = """ba be bi bo bu da de di do du fa fe fi fo ga go gu ha he hi ho ja jo ka ke ki ko ku la le li lo lu ma me
mi mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa we yo za ze zo bran
dor fel gar hel kor lin mar nor pel quin ras sten tor ulf ven wil zan eth ol ar en is or an el um""".split()
# Patterns of letters for words of any shape: c a consonant, v a vowel, . any letter.
LETTER_PATTERNS = tuple(
    tuple(
        {"c": "bcdfghjklmnpqrstvwxyz", "v": "aeiou", ".": "abcdefghijklmnopqrstuvwxyz"}[sign]
        for sign in pattern
    )
    for pattern in "cvc cvcc ccvc cvcv vcvc cvccv cvcvc ccvcc cvvc cvcvcv cvccvc ccvccvc cvcvccv vccvcv cvcvcvc ..... ...... ........".split()
)
# Words of any kind, from which training splices new ones.
ENGLISH = tuple(
    word
    for word in sorted(
        {
            *"""able above accept acid across action active admit adult advance advice afraid against agency
agree ahead allow almost alone along already among amount ancient anger angle answer appear approach argue arrive artist aspect attack attempt
author autumn avoid awake badly balance barrel battle beauty become begin behave behind believe belong benefit between beyond blood board bottom
bracket branch brave bread breath bridge brief bright bring broad brother burden butter button cabin campaign cannot capital captain careful
castle catch cause central century certain chain chamber chance change charge chapter cheap check cheese chicken choice church circle citizen
clean clear clever climb cloth cloud coast collar comfort common concern control corner correct cotton count country courage course cover
crash credit crowd curtain custom damage danger daughter decide deep defend degree deliver demand depend desert design detail develop differ
dinner direct dirty discuss distance divide double doubt dream dress drink drive during eager early earth easily effect effort eight either
elbow electric empty enemy energy engine enjoy enough enter entire equal escape evening event exact example except expect expert explain extra
fabric failure faith familiar famous fancy fashion father favour feather fellow female fence fever field fight figure finger finish flame flash
flight float flood floor flour follow foreign forest forget formal forward frame freedom frequent fresh friend front frozen further future gather
general gentle giant glass global goal golden govern grain grand grass gravel great grocery ground group grow guard guess guest guide habit
handle happen harbour hardly harvest heaven heavy height hidden history holiday honest hospital hotel house however human hundred hungry hunter
hurry ideal image impact improve income indeed inform injury inside instead interest invite island jacket join journey judge jungle junior
justice kitchen knife knock knowledge ladder language large later laugh lawyer leader league learn leather leave lecture legal length letter
level liberty library light likely limit listen little living local longer lucky lunch machine magazine major manage manner marble margin market
marry master matter meaning measure medical member memory mental merchant message metal middle military minute mirror mission mistake mixture
model modern moment monkey month moral mother motion mountain movement murder muscle music mystery narrow nation nature nearly needle neighbour
neither nephew network never night noble noise normal north nothing notice number nurse object observe obtain ocean offer office often opinion
orange ordinary organ origin outside oven owner oxygen packet painful paint palace panel paper parent parish partner party passage passenger
patient pattern payment peace people perfect perhaps period permit person picture piece planet plant plastic plate player please plenty pocket
poetry point poison police policy polite portrait position possible powder power practice prefer prepare present press pretty prevent price
priest prince prison private prize problem process produce profit program promise proper protect proud provide public pulse punish purchase purpose
quality quarter question quick quiet railway random rather reach ready reason receive recent record reduce refuse region regular relation remain
remember remove repair repeat reply report request rescue respect result return reward rhythm ribbon right river rocket rough round royal rubber
runner safety sailor salary sample satisfy scale scene school science screen search season second secret section secure select senior sentence
separate serious servant service settle seven shadow shallow shape sharp shelter shine shirt shock shoot short shoulder shower signal silence silk
similar simple single sister skill slave sleep slight slope smart smile smoke smooth social soldier solid source south special speech spend spirit
splendid spring square stable stage standard stare start station steady steam steel stick still stone storm straight strange stream street strike
string strong student study style subject succeed sudden suffer sugar suggest summer supply support surface surprise survive sweet swift system
tailor talent target taste teach temple tender tennis terrible theatre theory thick thing thirty thought thread threat throat through thunder ticket
tissue title together tomorrow tongue total touch tower trade travel treasure treat trial triangle trouble trust truth twelve twenty uncle under
union unique unit unless until upper useful usual valley value variety vessel victim victory village violent virtue visible visit voice volume
voyage wagon warning waste water wealth weapon weather wedding weekend weight welcome western whole wicked window winter wisdom within without
wonder wooden worker worry worth wound writer wrong yellow yesterday young youth""".split(),
            *ANIMALS,
            *COLOURS,
            *OBJECTS,
            *FOODS,
            *JOBS,
            *PRODUCTS,
            *TOPICS,
            *(word.lower() for word in NAMES + CITIES),
        }
    )
    if len(word) > 2 and "_" not in word and zlib.crc32(repr((word,)).encode()) % 8
)
SURNAMES_ZH = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
CITIES_ZH = "北京 上海 广州 深圳 杭州 成都 武汉 西安 南京 重庆 天津 苏州 长沙 青岛 大连 厦门 昆明 哈尔滨 济南 福州".split()
FOODS_ZH = "米饭 面条 饺子 豆腐 牛肉 鸡汤 包子 苹果 西瓜 咖啡 绿茶 牛奶 火锅 烤鸭 馒头 葡萄".split()
JOBS_ZH = (
    "老师 医生 护士 司机 厨师 律师 工程师 画家 记者 会计 程序员 警察 农民 歌手 设计师 图书管理员".split()
)
COLOURS_ZH = "红色 蓝色 绿色 黄色 白色 黑色 紫色 橙色 灰色 粉色".split()


@lru_cache(maxsize=1)
def hanzi() -> list[str]:
    """The 3,755 common characters of GB 2312's first level."""
    codes = (bytes((high, low)) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    return [char for code in codes if (char := code.decode("gb2312", "ignore"))]


@dataclass(frozen=True)
class Example:
    """One document. `messages` end with the assistant's answer; raw text has a prompt and an answer instead."""

    skill: str
    messages: tuple[dict, ...] = ()
    tools: tuple[dict, ...] = ()
    prompt: str = ""
    answer: str = ""
    # Held-out examples: what must be in the answer (any of these), and the prompt's words outside the fixed forms.
    keys: tuple[str, ...] = ()
    free_text: tuple[str, ...] = field(default=())


def split_of(*values: object) -> str:
    """The split that a value, or a pair of values, belongs to: one in eight is held out."""
    return HELD_OUT if zlib.crc32(repr(values).encode()) % 8 == 0 else TRAIN


def chat(skill: str, user: str, answer: str, system: str = "", **rest: object) -> Example:
    """A one-turn example."""
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return Example(skill, tuple(turns), answer=answer, **rest)


@cache
def _parts(template: str) -> tuple:
    """Split a template into literal text, {slots} and [one|of|these] choices."""
    parts = []
    for piece in re.split(r"(\[[^\]]*\]|\{\w+\})", template):
        if piece.startswith("["):
            parts.append(("choice", tuple(_parts(option) for option in piece[1:-1].split("|"))))
        elif piece.startswith("{"):
            parts.append(("slot", piece[1:-1]))
        elif piece:
            parts.append(("text", piece))
    return tuple(parts)


def fill(rng: Random, template: str, **slots: object) -> str:
    """Expand a template: `{slot}` takes a value, `[a|b]` one of its options (which may hold slots)."""
    return _fill(rng, _parts(template), slots)


def _fill(rng: Random, parts: tuple, slots: dict) -> str:
    out = []
    for kind, value in parts:
        if kind == "text":
            out.append(value)
        elif kind == "slot":
            out.append(str(slots[value]))
        else:
            out.append(_fill(rng, value[int(rng.random() * len(value))], slots))
    return "".join(out)


FILLERS = "please now just so well really then also maybe again today quickly actually simply kindly here there".split()
DROPPED = frozenset("a an the of is are do does please me it that can you could What".split())
BEFORE = (
    "Please tell me: ",
    "Hello. ",
    "Hi, ",
    "A question: ",
    "I want to know: ",
    "Now: ",
    "Next: ",
    "Please: ",
    "Well, ",
    "So, ",
    "Tell me, ",
    "One more thing. ",
    "I have a question. ",
    "Sorry, ",
    "Can you help? ",
    "Ok. ",
    "For my notes: ",
    "Dear assistant, ",
)
AFTER = (
    " Thanks.",
    " Thank you.",
    " Please.",
    " I need it.",
    " Be quick.",
    " I want to know.",
    " Can you tell me?",
    " Please tell me.",
    " Do you know?",
    " It is for my notes.",
    " I have to know it.",
    " Tell me.",
)
BEFORE_ZH = (
    "请问，",
    "老师，",
    "你好，",
    "我想问：",
    "我想知道：",
    "请教一下，",
    "麻烦问一下，",
    "那么，",
    "再问一个：",
    "对了，",
    "请告诉我，",
    "帮个忙：",
    "我是新手，",
    "下一个问题：",
    "不好意思，",
)
AFTER_ZH = (
    "谢谢。",
    "请回答。",
    "请告诉我。",
    "我想知道。",
    "麻烦了。",
    "急用。",
    "能说说吗？",
    "你知道吗？",
    "请说明。",
    "多谢！",
)


def noisy(rng: Random, template: str) -> str:
    """A training template as hasty people write: words dropped or put in, something before or after, other case.

    Questions in unseen wording are understood only by a model that does not cling to whole templates.
    """
    if rng.random() < 0.5:
        return template
    template = re.sub(r"\[([^\]]*)\]", lambda choice: rng.choice(choice[1].split("|")), template)
    chinese = any("\u4e00" <= char <= "\u9fff" for char in template)
    if chinese:
        letters = re.findall(r"\{\w+\}|.", template)
        letters = [letter for letter in letters if letter[0] == "{" or rng.random() > 0.05]
        template = "".join(letters)
    else:
        words = []
        for word in template.split(" "):
            if word not in DROPPED or rng.random() > 0.12:
                words.append(word)
            if rng.random() < 0.05:
                words.append(rng.choice(FILLERS))
        template = " ".join(words)
    kind = rng.random()
    if kind < 0.25:
        template = rng.choice(BEFORE_ZH if chinese else BEFORE) + template
    elif kind < 0.4:
        template = template + rng.choice(AFTER_ZH if chinese else AFTER)
    elif kind < 0.5:
        template = template.rstrip("?.。？")
    elif kind < 0.6:
        template = template[:1].lower() + template[1:]
    return template


def ask_noisily(rng: Random, split: str, template: str, **slots: object) -> str:
    """Fill a template, noisily in training."""
    return fill(rng, noisy(rng, template) if split == TRAIN else template, **slots)


def say(rng: Random, split: str, train: tuple[str, ...], held_out: tuple[str, ...], **slots: object) -> str:
    """Fill one of the split's own templates."""
    return ask_noisily(rng, split, rng.choice(train if split == TRAIN else held_out), **slots)


def draw(rng: Random, split: str, words: list[str]) -> str:
    """A word of the list that belongs to the split; short closed lists, such as weekdays, are shared.

    Half of training's words are invented, so that the model copies what it reads and not what it knows.
    """
    if split == TRAIN and len(words) >= 24 and rng.random() < 0.5:
        return invented(rng, split) if words[0][0].isupper() else invented(rng, split).lower()
    return known(rng, split, words)


def known(rng: Random, split: str, words: list[str]) -> str:
    """A word of the list that belongs to the split, never an invented one."""
    while True:
        word = rng.choice(words)
        if len(words) < 24 or split_of(word) == split:
            return word


def invented(rng: Random, split: str, low: int = 2, high: int = 3) -> str:
    """An invented capitalised word: of syllables, such as "Norvelin", or in training often of any letters."""
    while True:
        kind = 0.0 if split == HELD_OUT else rng.random()
        if kind < 0.35:
            word = "".join(rng.choices(SYLLABLES, k=rng.randint(low, high)))
        elif kind < 0.8:
            word = spliced(rng)
        else:
            word = "".join(rng.choice(group) for group in rng.choice(LETTER_PATTERNS))
        if split_of(word.capitalize()) == split:
            return word.capitalize()


def spliced(rng: Random) -> str:
    """The head of one English word and the tail of another, or a whole word: "sparket", "kitchow", "night"."""
    head, tail = rng.choice(ENGLISH), rng.choice(ENGLISH)
    if rng.random() < 0.3:
        return head
    return head[: rng.randint(1, len(head) - 1)] + tail[rng.randint(1, len(tail) - 1) :]


def name(rng: Random, split: str) -> str:
    """A first name, real or invented."""
    return known(rng, split, NAMES) if rng.random() < 0.4 else invented(rng, split)


def city(rng: Random, split: str) -> str:
    """A city, real or invented."""
    return known(rng, split, CITIES) if rng.random() < 0.4 else invented(rng, split)


def company(rng: Random, split: str) -> str:
    """A company such as "Torvan Systems"."""
    return invented(rng, split) + rng.choice(
        ("", " Systems", " Works", " Tools", " Group", " Labs", " Motors", " Foods", " Textiles", " Energy")
    )


def name_zh(rng: Random, split: str) -> str:
    """A Chinese name of two or three characters."""
    while True:
        word = rng.choice(SURNAMES_ZH) + "".join(rng.choices(hanzi(), k=rng.choice((1, 2, 2))))
        if split_of(word) == split:
            return word


def place_zh(rng: Random, split: str) -> str:
    """A Chinese town, invented or, in training, real."""
    if split == TRAIN and rng.random() < 0.4:
        return rng.choice(CITIES_ZH)
    while True:
        word = "".join(rng.choices(hanzi(), k=2)) + rng.choice("市县镇村")
        if split_of(word) == split:
            return word


def number(rng: Random, split: str, low: int, high: int) -> int:
    """A number of the split."""
    while True:
        value = rng.randint(low, high)
        if split_of(value) == split:
            return value


def pair(rng: Random, split: str, low: int = 1, high: int = 999) -> tuple[int, int]:
    """Two numbers whose pair belongs to the split, in either order; short numbers are as frequent as long ones."""
    while True:
        a, b = (rng.randint(low, min(high, 10 ** rng.choice((2, 3)) - 1)) for _ in range(2))
        if split_of(min(a, b), max(a, b)) == split:
            return a, b


def words_of(words: list[str]) -> Callable[[Random, str], str]:
    """A function that draws from a list."""
    return lambda rng, split: draw(rng, split, words)
