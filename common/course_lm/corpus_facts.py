"""Small facts on invented people, companies, towns and machines: sentences that state them, questions that ask."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists

Draw = Callable[[Random, str], object]


@dataclass(frozen=True)
class Attribute:
    """One thing to know of an entity `{e}`: its value `{x}`, sentences that state it and questions for it.

    The last sentence and the last question are the held-out split's; training uses the others.
    """

    value: Draw
    sentences: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of entity: how it is called, and what there is to know of it."""

    entity: Draw
    attributes: dict[str, Attribute]


def words(choices: list[str]) -> Draw:
    """A value from a list."""
    return lambda rng, split: v.draw(rng, split, choices)


def numbers(low: int, high: int) -> Draw:
    """A number of a range."""
    return lambda rng, split: v.number(rng, split, low, high)


PERSON = Kind(v.name, {
    "job": Attribute(words(lists.JOBS), (
        "{e} [works|earns a living] as a {x}.", "{e} is a {x}.", "{e} became a {x} [years|some time] ago.",
        "[By profession|At work], {e} is a {x}.", "The {x} in the family is {e}.",
        "Everyone knows {e} the {x}.",
        "{e} once trained to be a {x} and never left that trade.",
        "{e} [got|found|took] a job as [a|the] {x}.",
        "{e} [signed|has] a contract as a {x}.", "In a [small|busy] [office|shop|hall], {e} works as a {x}.",
        "People pay {e} for being a {x}.", "[A|The] {x} by the name of {e} [works|lives] here.",
        "The job of {e} is [that of a|to be a] {x}.", "{e} has [always|long] been a {x}.",
        "{e} has a job as a {x}."), (
        "What is {e}'s job?", "What does {e} do [for a living|at work]?",
        "What is the [profession|job] of {e}?",
        "As what does {e} work?", "Which job does {e} have?", "What trade does {e} follow?",
        "What is it that {e} does?", "What work does {e} do?", "Can you tell me {e}'s job?",
        "What does {e} work as?", "What is it that {e} works as?")),
    "city": Attribute(v.city, (
        "{e} lives in {x}.", "{e} [moved|went] to {x}.", "{e}'s [home|flat|house] is in {x}.",
        "{e} has a [house|flat] in {x}.",
        "The home of {e} is {x}.", "Since last year {e} has lived in {x}.",
        "{e} settled down at {x} long since.", "{e} [owns|has] a small [flat|place] in {x}.",
        "{e} lives [alone|happily|with friends] in {x}.",
        "{e} [lives|sleeps] in a [big|narrow|white|quiet] [flat|cottage|villa|cabin] in {x}.",
        "{e} [rents|shares|bought] a [tiny|large|sunny|cold] [room|attic|barn|studio] in {x}.",
        "In {x}, {e} has a [shop|workshop|garden] and a [bed|kitchen].", "{x} is [home to|the home of] {e}.",
        "You will find {e} in {x}.", "{e} lives in a small house in {x}."), (
        "Where does {e} live?", "In which [city|town] does {e} live?", "What is {e}'s home town?",
        "Where is {e}'s home?",
        "Which [city|town] is {e}'s home?", "What place did {e} choose to stay at?",
        "In which place does {e} live?", "In what city does {e} have a home?", "Which place is home to {e}?",
        "Can you tell me where {e} lives?", "In which place does {e} have a home?")),
    "animal": Attribute(words(lists.ANIMALS), (
        "{e} has a [pet|tame] {x}.", "{e} keeps a {x}.", "{e} owns a [small|young|old|] {x}.",
        "A {x} lives with {e}.",
        "{e}'s pet is a {x}.", "At home {e} feeds a {x} twice daily.", "{e} [got|bought|found] a {x}.",
        "{e} has had a {x} for years.", "In {e}'s house there is a {x}.", "The [animal|pet] of {e} is a {x}.",
        "{e} lives with a {x}.", "{e} has a {x} at home."), (
        "Which animal does {e} have?", "What pet does {e} [have|keep|own]?", "What is {e}'s pet?",
        "Which animal lives with {e}?", "Which pet [lives|is|sleeps] in {e}'s house?",
        "What kind of pet [lives with|belongs to] {e}?", "At {e}'s, which pet [lives|is] there?",
        "Which pet is it that lives with {e}?", "What creature does {e} look after?",
        "Which pet does {e} have at home?", "What animal lives at {e}'s house?", "Which animal is {e}'s pet?",
        "Can you tell me {e}'s pet?", "Which pet lives at {e}'s home?")),
    "food": Attribute(words(lists.FOODS), (
        "{e} likes {x} [best|most].", "{e}'s favourite food is {x}.", "{e} eats {x} [every day|on Sundays].",
        "{e} would do anything for {x}.", "{e} loves {x}.", "Nothing tastes as good to {e} as {x}.",
        "{e} [cooks|eats|orders] {x} most of the time.", "The food of {e} is {x}.",
        "The [dish|meal|food] {e} [loves|likes best] is {x}.", "{x} is what {e} likes to eat.",
        "The food that {e} likes most is {x}."), (
        "What does {e} like to eat?", "What is {e}'s favourite food?",
        "Which food does {e} like [best|most]?",
        "What does {e} love to eat?", "What would one cook to please {e}?", "Which food does {e} eat?",
        "What food is it that {e} likes?", "What does {e} eat most?", "Which food does {e} love?",
        "Which food does {e} eat most?")),
    "age": Attribute(numbers(18, 95), (
        "{e} is {x} years old.", "{e} turned {x} [this year|in spring].",
        "{e}, aged {x}, [sings|runs|swims] every day.",
        "At the age of {x}, {e} learned to swim.", "{e} counts {x} years by now.",
        "This year {e} [turned|became] {x}.", "{e} is now {x} years old.", "{e} is {x}.",
        "The age of {e} is {x}.", "{x} years old, {e} still works.", "This year {e} is {x} years old."), (
        "How old is {e}?", "What is {e}'s age?", "What age is {e}?", "How many years old is {e}?",
        "Which age has {e} reached?", "How many years does {e} count?", "Can you tell me how old {e} is?",
        "{e} is how old?", "What is the age of {e}?", "How many years is {e} old?")),
})
COMPANY = Kind(v.company, {
    "city": Attribute(v.city, (
        "{e} [is based|has its office] in {x}.", "The [head office|headquarters] of {e} [is|are] in {x}.",
        "{e} comes from {x}.", "{e}, a company in {x}, is growing.",
        "From {x}, {e} [sells|ships] to the whole world.",
        "Visitors of {e} must travel to {x}, its seat.", "{e} has [offices|its head office] in {x}.",
        "{e} is [a company|at home] in {x}.", "{x} is the [home|city] of {e}.",
        "The headquarters of {e} [stand|were built] in {x}.", "{e} has its headquarters in {x}."), (
        "Where is {e} based?", "In which city is {e}?", "Where does {e} have its office?",
        "Where are the headquarters of {e}?",
        "Which city is {e} from?", "To which place do visitors of {e} go?", "In what city is {e} based?",
        "What city is {e} from?", "In which city does {e} have its headquarters?",
        "Can you tell me where {e} is based?", "In what city are {e}'s headquarters?")),
    "product": Attribute(lambda rng, split: v.plural(v.draw(rng, split, lists.PRODUCTS)), (
        "{e} makes {x}.", "{e} [builds|produces] {x}.", "{e} is known for its {x}.",
        "{e} sells {x} [abroad|online|to schools].",
        "The [main|best] product of {e} is {x}.", "Whoever wants good {x} goes to {e}.",
        "{e}, [a company|the company], makes {x}.", "{e} is a maker of {x}.",
        "{x} [are made|come] [at|from] {e}.", "{e} [started to make|has always made] {x}.",
        "{e} is a company that makes {x}."), (
        "What does {e} make?", "What does {e} [produce|build|sell]?", "What is {e} known for?",
        "Which product comes from {e}?", "What does one buy at {e}?", "What product does {e} make?",
        "What is made at {e}?", "What is the product of {e}?", "Which things does {e} make?",
        "What is the main product that {e} makes?")),
    "founder": Attribute(v.name, (
        "{e} was founded by {x}.", "{x} [founded|started|set up] {e}.", "The founder of {e} is {x}.",
        "{e} was {x}'s idea.", "It was {x} who [founded|started] {e}.", "{x} opened {e} with borrowed money.",
        "{x} is the founder of {e}.", "{e} was started by {x}.", "{x}, [the|its] founder, still leads {e}.",
        "The one who started {e} is {x}.", "{x} is the founder who started {e}."), (
        "Who founded {e}?", "Who is the founder of {e}?", "Who started {e}?", "Who set up {e}?",
        "By whom was {e} founded?",
        "Who brought {e} into being?", "What is the founder of {e} called?",
        "What is the name of the founder of {e}?", "Who was it that started {e}?",
        "Can you tell me who founded {e}?", "What is the name of {e}'s founder?")),
    "year": Attribute(numbers(1850, 2024), (
        "{e} was founded in {x}.", "{e} [opened|started] in {x}.", "{e} has existed since {x}.",
        "In {x}, {e} [opened its doors|began its work].", "The story of {e} starts in {x}.",
        "The papers of {e} were signed back in {x}.", "The year {e} was founded is {x}.",
        "{x} was the year in which {e} started.", "{e} was started in [the year |]{x}.",
        "{e} is a company founded in {x}.", "{x} is the year in which {e} was founded."), (
        "When was {e} founded?", "In which year did {e} start?", "Since when does {e} exist?",
        "What year was {e} founded in?", "How far back does {e} go?",
        "What is the year in which {e} was founded?", "In what year did {e} start?", "When did {e} start?",
        "Which year was {e} founded in?", "In what year was {e} founded?")),
    "staff": Attribute(numbers(100, 9999), (
        "{e} employs {x} people.", "{e} has {x} [employees|workers].",
        "At {e}, {x} people [work|have a job].",
        "The staff of {e} counts {x}.", "On the payroll of {e} stand {x} names.",
        "There are {x} [workers|employees] at {e}.", "{x} people work [at|for] {e}.",
        "{e} gives work to {x} people.", "The number of people at {e} is {x}.",
        "There are {x} people who work at {e}."), (
        "How many people work at {e}?", "How many employees does {e} have?",
        "What is the size of {e}'s staff?",
        "How many people does {e} employ?", "How long is the payroll of {e}?",
        "What number of employees does {e} have?", "What is the number of people at {e}?",
        "{e} employs how many people?", "Can you tell me how many people work at {e}?",
        "What number of people does {e} employ?")),
})
TOWN = Kind(lambda rng, split: v.invented(rng, split), {
    "mayor": Attribute(v.name, (
        "The mayor of {e} is {x}.", "{x} is the mayor of {e}.", "{e} elected {x} [as|to be its] mayor.",
        "{e} is led by {x}.",
        "In the town hall of {e} sits {x}, the mayor.", "The people of {e} voted {x} into the town hall.",
        "{x} [leads|runs] {e}.", "{e} has [a|the] mayor called {x}.", "As mayor, {x} [leads|runs] {e}.",
        "{e}'s mayor is {x}.", "{x} leads {e} as its mayor."), (
        "Who is the mayor of {e}?", "Who leads {e}?", "What is the name of {e}'s mayor?", "Who runs {e}?",
        "Whom did {e} elect?", "Who sits at the head of {e}?", "What is the name of the mayor of {e}?",
        "How is the mayor of {e} called?", "By whom is {e} led?", "Who is {e}'s mayor?",
        "What is the mayor of {e} called?")),
    "river": Attribute(lambda rng, split: v.invented(rng, split, 2, 2), (
        "{e} lies on the river {x}.", "The river {x} [flows|runs] through {e}.",
        "The {x} is the river of {e}.",
        "{e} was built where the {x} is widest.", "Boats come to {e} on the {x}.",
        "Old mills line the {x}, the water of {e}.", "The river {e} lies on is the {x}.",
        "The {x} [flows|runs] through {e}.", "{e} has a river, the {x}.", "The river of {e} is called {x}.",
        "The river that flows through {e} is the {x}."), (
        "On which river is {e}?", "Which river flows through {e}?", "What is the river of {e} called?",
        "What river does {e} lie on?", "Which water passes by {e}?", "What is the name of the river of {e}?",
        "Which river is in {e}?", "What river flows through {e}?",
        "What is the name of the river on which {e} lies?", "What is the name of the river in {e}?")),
    "population": Attribute(numbers(1000, 9999), (
        "{e} has {x} inhabitants.", "{x} people live in {e}.", "The population of {e} is {x}.",
        "{e} is home to {x} people.", "A count in {e} came to {x} souls.", "In {e} there are {x} people.",
        "{x} inhabitants live in {e}.", "{e} [counts|has] {x} people.",
        "There live {x} people in the town of {e}.", "In {e} there live {x} people."), (
        "How many people live in {e}?", "What is the population of {e}?",
        "How many inhabitants does {e} have?",
        "How large is the population of {e}?", "How many souls were counted in {e}?",
        "What is the number of inhabitants of {e}?", "What number of inhabitants does {e} have?",
        "How many people are there in {e}?", "{e} has how many inhabitants?",
        "What number of people live in {e}?")),
    "month": Attribute(words(lists.MONTHS), (
        "The [fair|festival] of {e} is held in {x}.", "Every {x}, {e} [holds|has] its [fair|festival].",
        "{e} celebrates in {x}.", "In {x} the [fair|festival] comes to {e}.",
        "{x} brings dancers to the streets of {e}.", "The month of the [fair|festival] of {e} is {x}.",
        "{e} celebrates its [fair|festival] in {x}.", "{x} is the month when {e} celebrates.",
        "The [fair|festival] in {e} is in {x}.", "The month in which {e} celebrates is {x}."), (
        "When is the [fair|festival] of {e}?", "In which month does {e} celebrate?",
        "Which month is the [fair|festival] of {e} in?",
        "What month does {e} hold its [fair|festival]?", "Which part of the year brings dancers to {e}?",
        "In which month is the festival of {e} held?", "What month is the [fair|festival] of {e} held in?",
        "In what month does {e} celebrate?", "When does {e} celebrate?",
        "In what month is the festival of {e} held?")),
})
MACHINE = Kind(lambda rng, split: f"{rng.choice(('server', 'node', 'host', 'replica', 'machine'))} "
               f"{v.invented(rng, split, 1, 2).lower()}-{rng.randint(1, 99)}", {
    "port": Attribute(numbers(1024, 9999), (
        "{e} listens on port {x}.", "The port of {e} is {x}.", "{e} [answers|takes requests] on port {x}.",
        "Use port {x} [to reach|for] {e}.", "Whoever calls {e} has to dial port {x}.",
        "{e} is reached on port {x}.", "Port {x} [reaches|belongs to] {e}.", "One can reach {e} at port {x}.",
        "{e} uses port {x}.", "{e} can be reached on port {x}."), (
        "On which port does {e} listen?", "What is the port of {e}?", "Which port does {e} use?",
        "Which port [reaches|is used by] {e}?", "What port has a caller of {e} to dial?",
        "What port does {e} use?", "What port does {e} listen on?", "On what port can {e} be reached?",
        "Which is the port of {e}?", "Which port does {e} listen on?")),
    "owner": Attribute(v.name, (
        "{e} belongs to {x}.", "{x} [looks after|maintains] {e}.", "The owner of {e} is {x}.",
        "{x} is in charge of {e}.",
        "Call {x} when {e} is down.", "Any trouble on {e} lands with {x}.", "{x} owns {e}.",
        "{e} is owned by {x}.", "{e}'s owner is {x}.", "{x} takes care of {e}.", "{x} is the owner of {e}."),
        (
        "Who owns {e}?", "Who is in charge of {e}?", "Who [looks after|maintains] {e}?",
        "Whom do I call when {e} is down?",
        "Who gets the trouble on {e}?", "Who is {e}'s owner?", "What is the owner of {e} called?",
        "By whom is {e} owned?", "To whom does {e} belong?", "Who is the owner of {e}?")),
    "blocks": Attribute(numbers(100, 9999), (
        "{e} has {x} KV cache blocks.", "The cache of {e} holds {x} blocks.",
        "{x} blocks fit in the cache of {e}.",
        "On {e} there are {x} cache blocks.", "A look at {e} showed {x} cache blocks.",
        "There are {x} cache blocks on {e}.", "{e} can hold {x} blocks in its cache.",
        "The number of cache blocks of {e} is {x}.", "In the cache of {e} there is room for {x} blocks.",
        "There are {x} blocks in the cache of {e}."), (
        "How many cache blocks does {e} have?", "How many blocks fit in the cache of {e}?",
        "How many KV cache blocks are there on {e}?", "What is the number of cache blocks of {e}?",
        "Which block count did a look at {e} show?", "How many blocks does the cache of {e} hold?",
        "What number of cache blocks does {e} have?", "How many blocks are there in the cache of {e}?",
        "{e} has how many cache blocks?", "What number of blocks does the cache of {e} hold?")),
    "city": Attribute(v.city, (
        "{e} stands in {x}.", "{e} is [in|at] the [data centre|office] of {x}.", "{x} is where {e} runs.",
        "{e} was installed in {x}.", "The hum of {e} is heard in {x}.",
        "{e} [runs|stands] in the city of {x}.", "One finds {e} in {x}.", "The place of {e} is {x}.",
        "{e} is in {x}.", "{e} runs in {x}."), (
        "Where [is|stands] {e}?", "In which city is {e}?", "Where does {e} run?", "Where was {e} installed?",
        "Where is the hum of {e} heard?", "In what city does {e} run?", "What city is {e} in?",
        "Which city does {e} stand in?", "In which place is {e}?", "What city does {e} stand in?")),
})
EVENT_NOUNS = ("meeting", "workshop", "talk", "review")
EVENT = Kind(lambda rng, split: f"the {v.draw(rng, split, lists.TOPICS)} {rng.choice(EVENT_NOUNS)}", {
    "day": Attribute(words(lists.WEEKDAYS), (
        "{e} is on {x}.", "{e} [takes place|is held] on {x}.", "On {x}, [we have|there is] {e}.",
        "{e} was moved to {x}.",
        "Please come to {e} on {x}.", "Keep {x} free of other work for {e}.", "The day for {e} is {x}.",
        "{x} is the day of {e}.", "{e} will be on {x}.", "{e} starts on {x}.", "The day of {e} is {x}."), (
        "When is {e}?", "On which day is {e}?", "What day is {e}?", "Which day was {e} moved to?",
        "Which date should I keep free for {e}?", "On what day is {e}?", "On which day does {e} take place?",
        "What is the day of {e}?", "When does {e} take place?", "On what day does {e} take place?")),
    "room": Attribute(numbers(100, 999), (
        "{e} is in room {x}.", "{e} [takes place|is held] in room {x}.", "Room {x} is reserved for {e}.",
        "For {e}, go to room {x}.", "The door to {e} carries the number {x}.", "The room of {e} is {x}.",
        "{e} got room {x}.", "{x} is the room for {e}.", "{e} will be in room {x}.", "{e} has room {x}."), (
        "In which room is {e}?", "Where is {e} held?", "Which room is [reserved|booked] for {e}?",
        "What room is {e} in?",
        "What number is on the door to {e}?", "What is the room for {e}?", "Which is the room of {e}?",
        "Which room does {e} have?", "In what room does {e} take place?", "What is the room of {e}?")),
    "speaker": Attribute(v.name, (
        "{x} [leads|runs] {e}.", "{e} is led by {x}.", "{x} will speak at {e}.", "The speaker at {e} is {x}.",
        "The stage of {e} belongs to {x}.", "{e} is run by {x}.", "{e} will be led by {x}.",
        "{x} is the one who leads {e}.", "The one who speaks at {e} is {x}.", "{e} will be run by {x}."), (
        "Who leads {e}?", "Who speaks at {e}?", "Who will run {e}?", "Who is the speaker at {e}?",
        "Whose stage is {e}?", "By whom is {e} run?", "Who is it that leads {e}?", "Who will lead {e}?",
        "By whom will {e} be led?", "By whom is {e} led?")),
})
PERSON_ZH = Kind(v.name_zh, {
    "job": Attribute(words(lists.JOBS_ZH), (
        "{e}是一名{x}。", "{e}的职业是{x}。", "{e}的工作是{x}。", "作为{x}，{e}每天都很忙。", "{e}当了多年{x}。",
        "说到{x}，镇上首推{e}。", "{e}在当{x}。", "{e}的工作就是当{x}。", "{e}每天做{x}的工作。", "大家都说{e}是好{x}。", "{e}每天的工作是当{x}。"), (
        "{e}的职业是什么？", "{e}是做什么工作的？", "{e}做什么工作？", "{e}从事什么职业？", "{e}靠哪一行谋生？", "{e}有什么工作？", "{e}的工作是做什么？",
        "什么是{e}的职业？", "{e}现在做什么？", "{e}的工作是什么？")),
    "city": Attribute(v.place_zh, (
        "{e}住在{x}。", "{e}的家在{x}。", "{e}去年搬到了{x}。", "{e}来自{x}。", "在{x}，人人都认识{e}。",
        "{e}早年落脚于{x}。", "现在{e}住在{x}。", "{e}如今住{x}。", "{x}是{e}的家。", "{e}在{x}有个家。", "{e}现在住在{x}。"), (
        "{e}住在哪里？", "{e}的家在哪里？", "{e}住在什么地方？", "{e}来自哪里？", "{e}在何处落脚？", "{e}家在哪里？", "{e}现在的家在哪里？", "{e}住哪里？",
        "{e}如今住在何处？", "{e}现在住哪里？")),
    "food": Attribute(words(lists.FOODS_ZH), (
        "{e}最喜欢{x}。", "{e}爱吃{x}。", "{e}每天都要吃{x}。", "{x}是{e}的最爱。", "请{e}做客，少不了{x}。", "{e}最爱{x}。",
        "{e}最喜欢吃的是{x}。", "{e}爱吃的是{x}。", "{x}，{e}天天都吃。", "{e}最爱吃的是{x}。"), (
        "{e}喜欢吃什么？", "{e}最喜欢的食物是什么？", "{e}爱吃什么？", "{e}最爱什么？", "请{e}做客该准备什么？", "{e}最爱吃什么？", "{e}喜欢的食物是什么？",
        "什么是{e}的最爱？", "{e}最喜欢吃的是什么？", "什么是{e}最爱吃的？")),
    "age": Attribute(numbers(18, 95), (
        "{e}今年{x}岁。", "{e}{x}岁了。", "{e}的年龄是{x}岁。", "今年{x}岁的{e}还在上班。", "{e}刚过完{x}岁生日。", "{e}的年龄：{x}岁。",
        "{e}已经{x}岁了。", "{e}年龄是{x}岁。", "今年{e}{x}岁。", "{e}的年龄今年是{x}岁。"), (
        "{e}多大了？", "{e}今年几岁？", "{e}的年龄是多少？", "{e}多少岁？", "{e}过的是几岁生日？", "{e}几岁了？", "{e}今年的年龄是多少？", "{e}现在几岁？",
        "今年{e}多大？", "{e}今年的年龄是几岁？")),
})
COMPANY_ZH = Kind(lambda rng, split: v.place_zh(rng, split)[:2] + rng.choice(("科技", "电子", "食品", "机械", "集团")), {
    "city": Attribute(v.place_zh, (
        "{e}的总部在{x}。", "{e}设在{x}。", "{e}位于{x}。", "{e}来自{x}。", "{e}的办公楼坐落于{x}。", "{x}有{e}的总部。", "{e}总部设在{x}。",
        "{x}是{e}所在的地方。", "总部在{x}的{e}正在扩大。", "{x}是{e}的总部。"), (
        "{e}的总部在哪里？", "{e}位于哪里？", "{e}在哪个地方？", "{e}设在哪里？", "{e}的办公楼坐落何处？", "{e}的总部设在哪里？", "{e}的总部位于哪里？",
        "{e}位于什么地方？", "{e}总部在什么地方？", "{e}的总部位于什么地方？")),
    "founder": Attribute(v.name_zh, (
        "{e}由{x}创立。", "{x}创办了{e}。", "{e}的创始人是{x}。", "创立{e}的人是{x}。", "{x}借钱开起了{e}。", "{e}的创始人叫{x}。",
        "{e}是{x}创办的。", "{x}是{e}的创始人。", "名叫{x}的人创立了{e}。", "{e}的创始人名叫{x}。"), (
        "谁创立了{e}？", "{e}的创始人是谁？", "{e}是谁创办的？", "{e}由谁创立？", "是谁开起了{e}？", "谁创办了{e}？", "创立{e}的人是谁？",
        "{e}的创始人叫什么？", "谁是{e}的创始人？", "创办{e}的人是谁？")),
    "year": Attribute(numbers(1900, 2024), (
        "{e}成立于{x}年。", "{e}在{x}年开业。", "{x}年，{e}成立。", "{e}从{x}年开始营业。", "{e}的历史可追溯到{x}年。", "{x}年{e}创立。",
        "{e}创立于{x}年。", "{e}是在{x}年成立的。", "{x}年是{e}成立的那一年。", "{e}是{x}年创立的。"), (
        "{e}成立于哪一年？", "{e}是哪年成立的？", "{e}什么时候开业？", "{e}成立于何时？", "{e}的历史追溯到哪年？", "{e}哪一年成立？", "{e}在哪年开业？",
        "{e}哪一年开业的？", "{e}创立于哪一年？", "{e}在哪一年开业？")),
})
KINDS_EN = (PERSON, COMPANY, TOWN, MACHINE, EVENT)
KINDS_ZH = (PERSON_ZH, COMPANY_ZH)


def sibling(rng: Random, entity: str) -> str:
    """An event or machine whose name begins as this one's: "the budget talk" for "the budget review"."""
    if "-" in entity.rpartition(" ")[2]:
        return f"{entity.rpartition('-')[0]}-{rng.randint(1, 99)}"
    return f"{entity.rpartition(' ')[0]} {rng.choice(EVENT_NOUNS)}"


def templates_of(split: str, templates: tuple[str, ...]) -> tuple[str, ...]:
    """The split's own templates: the last one is held out."""
    return templates[:-1] if split == v.TRAIN else templates[-1:]


def state(rng: Random, split: str, attribute: Attribute, entity: str, value: object) -> str:
    """A sentence that states a fact."""
    templates = templates_of(split, attribute.sentences)
    if isinstance(value, str) and value[0].islower():  # at the head of a sentence nobody could tell its case
        templates = tuple(template for template in templates if not template.startswith("{x}"))
    template = rng.choice(templates)
    if split == v.TRAIN and rng.random() < 0.3:
        template = v.noisy(rng, template)
    return v.capital(v.fill(rng, template, e=entity, x=value))


def ask(rng: Random, split: str, attribute: Attribute, entity: str) -> str:
    """A question for a fact."""
    return v.capital(v.ask_noisily(rng, split, rng.choice(templates_of(split, attribute.questions)), e=entity))
