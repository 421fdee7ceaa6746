"""A sentence to JSON with the fields that are asked for, by name or by a JSON schema.

A value stands in the JSON as it is written in the text: "13 tables" gives "tables", "1 table" gives "table".
"""

import json
from collections.abc import Callable
from random import Random

from common.course_lm import corpus_anything as anything
from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import SYSTEM, json_prompt, json_schema, schema_prompt

FREE_FORMS = (
    "{text}\n\n[Extract|Give|Return] {fields} as JSON.",
    "Turn this into JSON with the [fields|keys] {fields}: {text}",
    "Return a JSON object with {fields}.\n{text}", "Fields: {fields}\nText: {text}\nJSON:",
    "[Extract|Pull out|Find] {fields} from the [text|sentence] as JSON: {text}", "JSON with {fields}: {text}",
    "Read the text and fill in {fields}. Answer in JSON.\n\n{text}", "{text}\nAs JSON: {fields}",
    "从文本中提取 {fields}，用 JSON 回答。\n{text}",
)
Record = dict[str, object]


def person(rng: Random, split: str) -> Record:
    """A person."""
    return {"name": v.name(rng, split), "age": v.number(rng, split, 18, 95), "city": v.city(rng, split),
            "job": v.draw(rng, split, lists.JOBS)}


def order(rng: Random, split: str) -> Record:
    """A purchase."""
    quantity, thing = rng.randint(1 if split == v.TRAIN else 2, 40), v.draw(rng, split, lists.OBJECTS)
    return {"customer": v.name(rng, split), "product": thing if quantity == 1 else v.plural(thing),
            "colour": v.draw(rng, split, lists.COLOURS), "quantity": quantity, "price": v.number(rng, split, 10, 999)}


def meeting(rng: Random, split: str) -> Record:
    """A meeting."""
    return {"topic": v.draw(rng, split, lists.TOPICS), "day": v.draw(rng, split, lists.WEEKDAYS), "hour": rng.randint(7, 20),
            "room": v.number(rng, split, 100, 999), "organiser": v.name(rng, split)}


def trip(rng: Random, split: str) -> Record:
    """A journey."""
    return {"traveller": v.name(rng, split), "origin": v.city(rng, split), "destination": v.city(rng, split),
            "month": v.draw(rng, split, lists.MONTHS), "days": rng.randint(2, 30)}


def server(rng: Random, split: str) -> Record:
    """A server's settings."""
    return {"host": f"{v.invented(rng, split, 1, 2).lower()}-{rng.randint(1, 99)}", "port": v.number(rng, split, 1024, 9999),
            "gpus": rng.choice((1, 2, 4, 8)), "owner": v.name(rng, split), "region": v.city(rng, split)}


def firm(rng: Random, split: str) -> Record:
    """A company."""
    return {"company": v.company(rng, split), "city": v.city(rng, split), "founded": v.number(rng, split, 1850, 2024),
            "product": v.plural(v.draw(rng, split, lists.PRODUCTS)),
            "employees": v.number(rng, split, 100, 9999)}


# The last two sentences of each are the held-out split's. A sentence need not name every field.
SENTENCES: dict[Callable[[Random, str], Record], tuple[str, ...]] = {
    person: (
        "[There|Here] [lives|works] {name}, [a|the] {job}, in {city}; [the age is|years so far:] {age}.",
        "{job} and {age} years old: {name} of {city}.",
        "In {city}, {name} ([{age}|aged {age}]) [works|is known] as [a|the] {job}.",
        "As a {job}, {name} moved to {city} at {age}.",
        "Our {job}, {name}, turned {age} in {city}.",
        "The new one is {name}, {age}, who comes from {city} and was a {job} before.",
        "{name}, a {age}-year-old {job}, lives in {city}.",
        "{name} is {age} years old, works as a {job} and comes from {city}.",
        "[Meet|This is] {name}, {age}, [a|our] {job} from {city}.",
        "In {city} there is a {job} called {name}, aged {age}.",
        "{name} from {city} is a {job}. [She|He] is {age}.", "The {job} {name} ({age}) has moved to {city}.",
        "At {age}, {name} still works as a {job} in {city}.",
        "My name is {name}, I am {age} and a {job} in {city}.",
        "{name} ({city}) is {age} and a {job}.", "I met a {job} in {city}: {name}, {age} years old.",
        "Hello, {name} here. I work as a {job}, I'm {age}, and {city} is my home.",
        "{city} is where {name} lives, a {job} of {age}.",
        "{name} lives in {city} and is {age}.", "{name} works as a {job} in {city}.",
        "{age} candles were on the cake that {city} gave its {job} {name}.",
        "No {job} around {city} is as well liked as {name}, now in year {age}.", "[Our|The|A] [new|old|good] "
        "{job} [is|is called] {name}, [aged {age}|{age} years old], [from|living in] {city}.", "{name} "
        "[is|has turned] {age}, [lives in|is at home in] {city} and [has a job|earns a living] as a "
        "{job}.", "{name} has a home in {city}, is {age} years old and a {job} by profession.",
        "[Please meet|Say hello to|I know] {name}: {job}, {age}, {city}.",
        "Name {name}, age {age}, job {job}, city {city}.",
        "{age} years old and from {city}, {name} has become a {job}.",
        "The city of {city} has a new {job}: {name}, who is {age}.",
        "A {job} of {age} years, {name}, [lives|has a home] in {city}.",
        "{name} is from {city}. The job is {job} and the age {age}.",
        "Our new {job} is {name}, {age} years old and from {city}.",
        "{name} is {age}, has a home in {city} and a job as a {job}."),
    order: (
        "{customer} [takes|needs|received|was sent] {quantity} {colour} {product} [at a cost of|worth|valued at|on a bill of] {price} dollars.",
        "[The bill|The cost|The sum|The total|The amount] for {customer}'s {quantity} {colour} {product} [is|comes to|makes|was] {price} dollars.",
        "[The bill|The cost|The sum|The charge] of {quantity} {product} in {colour}, [taken|chosen|picked] by {customer}, [is|was|comes to] {price} dollars.",
        "[It takes|We ask|They want] {price} dollars [for|to get] {quantity} {colour} {product}, [says|writes|hears] {customer}.",
        "{quantity} [pieces|units] of {colour} {product}, {price} dollars [together|in all]: {customer} [agrees|signs|pays].",
        "[Soon|Tomorrow|Now] {customer} [has|receives|collects] {quantity} {product} [coloured|painted|dyed] {colour} [for|at|against] {price} dollars.",
        "The {quantity} {colour} {product} [went|were sold|were shipped|are sent] to {customer}, who [owes|paid|pays] {price} dollars.",
        "What {customer} [chose|took] were {quantity} {colour} {product}, [priced at|marked|sold at] {price} dollars.",
        "[The buyer|The client|Buyer] {customer} [leaves|left|goes home] with {quantity} {product} in {colour} and {price} dollars [less|poorer|on the card].",
        "[Sold|Shipped|Packed]: {quantity} {product}, {colour}, [to|for] {customer}, {price} dollars.",
        "How much? {price} dollars for {quantity} {product}, {colour} ones, that {customer} [wished|looked] for.",
        "[Since|As|Because] {customer} [wants|needs] {quantity} {colour} {product}, [we charge|they charge|the shop asks] {price} dollars.",
        "The {product} that {customer} [wished for|asked about|chose] are {colour}, {quantity} in number, and cost {price} dollars.",
        "The price of this order by {customer}, {quantity} {product} in {colour}, [is|stands at] {price} dollars.",
        "[At|For] the price of {price} dollars, {quantity} {colour} {product} [were sent|go|went] to {customer}.",
        "{customer} [is|will be] charged {price} dollars: {quantity} {colour} {product}.",
        "[A|One] bill of {price} dollars [goes|is sent] to {customer}, who [got|took] {quantity} {product} in {colour}.",
        "{customer} will [get|have|receive] {colour} {product}, {quantity} [of them|pieces], for {price} dollars.",
        "{customer} [picked|chose] {product} in {colour}: {quantity} [pieces|of them], {price} dollars.",
        "Price: {price} dollars for {quantity} {product}. They are {colour}, and {customer} [wants|gets] them.",
        "{quantity} {product} go to {customer}; [colour|the colour is] {colour}, [cost|the cost is] {price} dollars.",
        "A parcel with {quantity} {colour} {product} left for {customer}, worth {price} dollars.",
        "Of the {colour} {product} {customer} took {quantity} and left {price} dollars on the desk.",
        "{price} dollars: that is what {customer} spent on {quantity} {product}, all {colour}.",
        "{customer} ordered {quantity} {colour} {product} for {price} dollars.",
        "{customer} bought {quantity} {colour} {product} and paid {price} dollars.",
        "An order came from {customer}: {quantity} {product}, {colour}, {price} dollars in all.",
        "For {price} dollars, {customer} gets {quantity} {colour} {product}.",
        "Please send {quantity} {colour} {product} to {customer}. The price is {price} dollars.",
        "{customer} wants {quantity} {product} in {colour} and will pay {price} dollars.",
        "We sold {quantity} {colour} {product} to {customer} at {price} dollars.",
        "Order: {quantity} x {product}, {colour}, {price} USD, for {customer}.",
        "{quantity} {colour} {product} were bought by {customer} for {price} dollars.",
        "The invoice for {customer} lists {quantity} {colour} {product}, total {price} dollars.",
        "{customer} asked for {product} in {colour}, {quantity} of them, {price} dollars together.",
        "{customer} bought {quantity} {product} for {price} dollars.",
        "Hi, {customer} speaking, I'd like {quantity} {colour} {product}. {price} dollars is fine.",
        "On the lorry are {quantity} {colour} {product}; {customer} settled the {price} dollars already.",
        "{price} dollars changed hands when {customer} carried {quantity} {colour} {product} out of our "
        "shop.", "[Our|A|The] customer {customer} [wants|ordered|bought|gets|needs] {quantity} {colour} "
        "{product} for {price} dollars.", "The price [of|for] {quantity} {colour} {product} is {price} "
        "dollars, [ordered by|for] {customer}.", "{quantity} {product} in {colour} [cost|come to] {price} "
        "dollars for [our customer|] {customer}.",
        "For the {quantity} {colour} {product} that {customer} [wants|bought], we get {price} dollars.",
        "[Today|Yesterday] "
        "{customer}, a customer, [took|received] {quantity} {colour} {product}; the price was {price} "
        "dollars.", "Customer: {customer}. Product: {product}. Colour: {colour}. Quantity: {quantity}. "
        "Price: {price}.",
        "The order of {customer} is {quantity} {product}, colour {colour}, price {price} dollars.",
        "{customer} will pay {price} dollars for {quantity} {product} in {colour}.",
        "Our shop will send {customer} {quantity} {product} in {colour}. That is {price} dollars.",
        "The price of the {quantity} {colour} {product} that {customer} ordered is {price} dollars.",
        "Our customer {customer} will get {quantity} {product} in {colour} for {price} dollars."),
    meeting: (
        "{topic} [again|once more]: {organiser} [waits|sits] in room {room} from {hour} o'clock on {day}.",
        "{day} at {hour}, room {room}: {organiser} and the others on {topic}.",
        "Room {room} it is, {hour} o'clock on {day}; {topic} is what {organiser} has for us.",
        "Whoever cares about {topic} comes to {organiser} on {day} at {hour}, room {room}.",
        "{organiser} invites you to the {topic} meeting on {day} at {hour} in room {room}.",
        "The {topic} meeting is on {day} at {hour} o'clock, room {room}. {organiser} leads it.",
        "On {day} at {hour}, {organiser} will talk about {topic} in room {room}.",
        "Meeting on {topic}: {day}, {hour} o'clock, room {room}, called by {organiser}.",
        "{organiser} moved the {topic} meeting to {day}, {hour} o'clock, in room {room}.",
        "Room {room} is booked by {organiser} for {topic} on {day} at {hour}.",
        "Please come to room {room} on {day} at {hour}. {organiser} wants to discuss {topic}.",
        "{day}, {hour}:00, room {room}: {topic}, with {organiser}.",
        "The {topic} review by {organiser} starts at {hour} on {day} in room {room}.",
        "Let's meet on {day} at {hour} in room {room} about {topic}. Best, {organiser}",
        "{organiser} has a meeting about {topic} on {day} at {hour}.",
        "At {hour} on {day} we speak about {topic}; {organiser} is the host, the room is {room}.",
        "{organiser} hopes that {topic} gets settled in room {room}, {day}, when the clock shows {hour}.",
        "Bring coffee into room {room}: {topic} is due {day} from {hour} onwards, says {organiser}.",
        "{organiser} "
        "[called|planned|wants] a meeting [on|about] {topic}: {day}, {hour} o'clock, room {room}.",
        "The meeting is about {topic}. {organiser} called it for {day} at {hour} in room {room}.",
        "On {day} in room {room} at {hour} o'clock, {organiser} [speaks|wants to speak] about {topic}.",
        "Topic {topic}, organiser {organiser}, {day}, hour {hour}, room {room}.",
        "In room {room}, {organiser} will lead the {topic} meeting on {day} at {hour} o'clock.",
        "{topic} is the topic on {day} at {hour} in room {room}, says {organiser}.",
        "The organiser of the {topic} meeting is {organiser}. It is in room {room} on {day} at {hour}.",
        "{organiser} wants us to talk about {topic} on {day}, in room {room}, at {hour} o'clock.",
        "At {hour} o'clock on {day}, room {room}, the meeting about {topic} that {organiser} called.",
        "{organiser} wants to talk about {topic}: room {room}, on {day}, at {hour} o'clock.",
        "The meeting that {organiser} called is about {topic}, on {day} at {hour} in room {room}."),
    trip: (
        "The month is {month}: {traveller} [flies|drives|sails] from {origin} to {destination} and is away {days} days.",
        "{month} [brings|means] a [flight|journey|drive] from {origin} to {destination} for {traveller}, {days} days long.",
        "A journey of {days} days waits for {traveller}: out of {origin}, into {destination}, all in {month}.",
        "From {origin} to {destination}, {days} days, [late|early|some time] in {month}: that is what {traveller} booked.",
        "[Look|Note]: in {month} we have a journey to {destination}, {traveller} comes along from {origin}, {days} days.",
        "Out of {origin} in {month}, {days} days in {destination}: a [plan|dream] of {traveller}.",
        "{traveller} flies from {origin} to {destination} in {month} for {days} days.",
        "In {month}, {traveller} goes from {origin} to {destination} and stays {days} days.",
        "{traveller} booked a trip of {days} days from {origin} to {destination} in {month}.",
        "Trip: {origin} to {destination}, {days} days, {month}, {traveller}.",
        "{traveller} leaves {origin} in {month} to spend {days} days in {destination}.",
        "For {days} days in {month}, {traveller} from {origin} will visit {destination}.",
        "A train takes {traveller} from {origin} to {destination} in {month}. The stay is {days} days.",
        "{traveller} will be in {destination} for {days} days in {month}, coming from {origin}.",
        "{month}: {traveller} travels {origin} - {destination}, {days} days.", "{traveller} starts in "
        "{origin}, goes to {destination} in {month}, and comes back after {days} days.",
        "{traveller} is going to {destination} in {month}.",
        "I'm {traveller}. I want to go from {origin} to {destination} in {month} for {days} days.",
        "Once {month} begins, {origin} loses {traveller} to {destination}, though just {days} days long.",
        "{days} days off: {traveller} swaps {origin} against {destination} when {month} comes.",
        "{traveller} "
        "[comes|is] from {origin} and [goes|will go|flies] to {destination} for {days} days in {month}.",
        "In {month}, {traveller} will spend {days} days in {destination}, coming from {origin}.",
        "The trip of {traveller} in {month}: from {origin} to {destination}, {days} days.",
        "There is a trip to {destination} from {origin} in {month}. {traveller} stays {days} days.",
        "Traveller {traveller}, origin {origin}, destination {destination}, month {month}, days {days}.",
        "From {origin}, {traveller} goes to {destination} in {month} and will stay for {days} days.",
        "{traveller} spends {days} days of {month} in {destination}; the home is {origin}.",
        "{destination} is where {traveller} from {origin} will stay {days} days in {month}.",
        "In {month} {traveller} will leave {origin} for {destination}: {days} days.",
        "In {month} there is a trip from {origin} to {destination}: {traveller} will stay {days} days.",
        "{traveller} comes from {origin} and will spend {days} days of {month} in {destination}."),
    server: (
        "Port {port} leads to {host}: {gpus} GPUs in {region}, and {owner} [pays|cares] for it.",
        "{owner} bought {gpus} GPUs for {host}; it stands in {region} behind port {port}.",
        "There is {host} now, a machine of {owner} with {gpus} GPUs; [call|try] port {port} in {region}.",
        "Server {host} in {region} has {gpus} GPUs, listens on port {port} and belongs to {owner}.",
        "{owner} runs {host} in {region} with {gpus} GPUs on port {port}.",
        "{host} ({region}) uses port {port} and {gpus} GPUs; the owner is {owner}.", "On {host}, port {port} "
        "is open. It has {gpus} GPUs, stands in {region} and is looked after by {owner}.",
        "{owner} started a server called {host} on port {port} in {region} with {gpus} GPUs.",
        "New host: {host}, {gpus} GPUs, region {region}, port {port}, owner {owner}.",
        "The machine {host} with {gpus} GPUs answers on port {port}. Ask {owner} in {region}.",
        "In {region}, {owner} set up {host} with {gpus} GPUs behind port {port}.",
        "Use {host} at port {port}. It is in {region}, has {gpus} GPUs and {owner} owns it.",
        "{host} has {gpus} GPUs and listens on port {port}.",
        "Whoever needs {gpus} GPUs may knock at port {port} of {host}, {owner}'s box over in {region}.",
        "{region} got {host} today; {owner} gave it {gpus} GPUs plus port {port}.", "{host} [belongs to|is "
        "owned by] {owner}, [is|runs] in {region}, [uses|has] {gpus} GPUs and [listens on|answers on] "
        "port {port}.", "The server {host} [of|that belongs to] {owner} [stands|runs] in {region} and has "
        "{gpus} GPUs and port {port}.", "{owner} has a server in {region}: {host}, {gpus} GPUs, port {port}.",
        "In {region} there is the server {host} of {owner}. Port {port} is open, {gpus} GPUs are in it.",
        "Host {host}, region {region}, owner {owner}, GPUs {gpus}, port {port}.", "The {region} server is "
        "called {host}. {owner} owns it; it has {gpus} GPUs and listens on {port}.",
        "{host}, {owner}'s server in {region}, is open on port {port} with {gpus} GPUs.",
        "Port {port} of {host} in {region}, with {gpus} GPUs, belongs to {owner}.",
        "{owner}'s machine in {region}, called {host}, has {gpus} GPUs. The port is {port}.",
        "{host} belongs to {owner}, stands in {region}, and has {gpus} GPUs and port {port}.",
        "The server of {owner} in {region} is called {host}: {gpus} GPUs, open on port {port}."),
    firm: (
        "{product} come from {company} of {city}: {employees} people, [founded|started] {founded}.",
        "Since {founded} there is {company}, a maker of {product} in {city} that employs {employees}.",
        "{employees} workers, {product}, {city}, {founded}: that is {company}.",
        "A company called {company} [opened|started] in {city} in {founded}; [now|today] {employees} people [sell|make] {product}.",
        "They make {product}, they are {employees}, and they sit in {city}: {company}, founded {founded}.",
        "{company} from {city} was founded in {founded}, makes {product} and employs {employees} people.",
        "Founded in {founded}, {company} in {city} has {employees} employees and makes {product}.",
        "{company} makes {product} in {city} since {founded} with {employees} people.",
        "With {employees} people, {company} produces {product} in {city}. It started in {founded}.",
        "In {founded}, {company} opened in {city}. Today {employees} people make {product} there.",
        "{company} ({city}, {founded}) sells {product} and has a staff of {employees}.",
        "{city} is home to {company}, which has made {product} since {founded} and employs {employees} "
        "people.",
        "{employees} people work for {company}, a maker of {product} founded in {founded} in {city}.",
        "The firm {company} began in {founded}. It is in {city}, builds {product} and has {employees} "
        "workers.", "{company} sells {product} from {city}.",
        "{city} had no {product} before {company} came along in {founded}, now {employees} heads strong.",
        "Ask for {product} at {company}: {employees} pairs of hands, rooted in {city}, born {founded}.",
        "{company} "
        "was [founded|started] in {founded}, [is|works] in {city}, [sells|makes] {product} and has "
        "{employees} [people|employees].", "[Since {founded}|In {founded} it began:] {company} of {city} has "
        "made {product} with {employees} people.",
        "The {employees} [employees|workers] of {company} make {product} in {city} since {founded}.",
        "In {city}, {employees} people of {company} have made {product} since {founded}.",
        "Company {company}, city {city}, founded {founded}, product {product}, employees {employees}.",
        "{company} sells {product}, has {employees} people in {city} and was founded in {founded}.",
        "{company} has {employees} employees. It was founded in {city} in {founded} and sells {product}.",
        "{product} have been made since {founded} by the {employees} people of {company} in {city}.", "The "
        "company in {city} that makes {product} is {company}, founded in {founded}, with {employees} "
        "people.", "The {employees} people of {company} in {city} have made {product} since {founded}.",
        "{company} " "was founded in {founded} in {city}. It sells {product} and has {employees} employees."),
}


def mentioned(template: str, record: Record) -> Record:
    """The record with null for every field that the sentence does not name."""
    return {key: value if "{" + key + "}" in template else None for key, value in record.items()}


# How a list of fields and values is written: between fields, and between a field and its value.
BETWEEN_FIELDS = ("; ", ", ", ". ", "\n", " | ", " / ")
BEFORE_VALUE = (": ", " = ", " is ", " ", " - ", " -> ")
CLAUSES = ("the {p} {x}", "{x} as its {p}", "{p} {x}", "a {p} of {x}", "{x} for the {p}")
SENTENCE_FORMS = ("The {p} of {e} is {x}.", "{e} has the {p} {x}.", "It has {x} as the {p} of {e}.", "Its {p} is {x}.", "The {p} [is|was] {x}.",
                  "For the {p} [they|we] chose {x}.", "{e}'s {p} is {x}.", "As {p} it has {x}.", "[Now|Today] the {p} is {x}.",
                  "One [sees|finds] {x} [under|as the] {p}.", "Then there is the {p}: {x}.")


def field_name(rng: Random) -> str:
    """The name of a field: any noun, or two in snake case."""
    words = [rng.choice(anything.PROPERTIES) if rng.random() < 0.7 else v.invented(rng, v.TRAIN, 1, 2).lower()
             for _ in range(2)]
    return words[0] if rng.random() < 0.7 else "_".join(words)


def sheet(rng: Random) -> tuple[str, Record]:
    """A text on any fields with values of any sort, and its record. Only training has these.

    No two have the same fields or values, so nothing here can be known by heart: it must be copied.
    """
    record: Record = {}
    for _ in range(rng.randint(2, 6)):
        value = anything.value(rng, v.TRAIN)
        if rng.random() < 0.08:
            value = [anything.short_value(rng) for _ in range(rng.randint(2, 4))]
        record[field_name(rng)] = value
    entity, kind = anything.thing(rng, v.TRAIN), rng.random()
    spoken = {}
    for key, value in record.items():
        key = key.replace("_", " ") if rng.random() < 0.7 else key
        spoken[key] = anything.enumeration(rng, value) if isinstance(value, list) else value
    if kind < 0.3:
        between, before = rng.choice(BETWEEN_FIELDS), rng.choice(BEFORE_VALUE)
        heads = [v.capital(key) if rng.random() < 0.3 else key for key in spoken]
        text = between.join(f"{head}{before}{value}" for head, value in zip(heads, spoken.values(), strict=True))
        text = rng.choice(("", "", f"{entity}: ", f"{entity} - ", f"On {entity}. ")) + text + rng.choice(("", "."))
    elif kind < 0.5:
        clause = rng.choice(CLAUSES)
        parts = [fill(rng, clause if rng.random() < 0.8 else rng.choice(CLAUSES), p=key, x=value)
                 for key, value in spoken.items()]
        text = fill(rng, "{e} has {parts}.", e=entity, parts=anything.enumeration(rng, parts))
    else:
        # No value opens a sentence: a capital letter would hide how it is written.
        text = " ".join(v.capital(v.ask_noisily(rng, v.TRAIN, rng.choice(SENTENCE_FORMS), e=entity, p=key, x=value))
                        for key, value in spoken.items())
    if rng.random() < 0.2:
        record.setdefault(field_name(rng), None)
    return text, record


def extraction(rng: Random, split: str) -> Example:
    """Some of the fields of a sentence, in any order, asked for by name or by a schema."""
    if split == v.TRAIN and rng.random() < 0.35:
        text, record = sheet(rng)
    else:
        scenario = rng.choice(list(SENTENCES))
        record = scenario(rng, split)
        sentences = SENTENCES[scenario]
        template = rng.choice(sentences[:-2] if split == v.TRAIN else sentences[-2:])
        text = v.ask_noisily(rng, split, template, **record)
        record = mentioned(template, record)
    if split == v.TRAIN and rng.random() < 0.2:
        text += rng.choice((" Thank you.", " See you soon.", " All is well.", " That is all we know.", " Please note it."))
    schema = rng.random() < 0.15
    if schema:  # a schema says of what type a value is: no null
        record = {key: value for key, value in record.items() if value is not None}
    fields = rng.sample(list(record), rng.randint(min(2, len(record)), len(record)))
    answer = json.dumps({key: record[key] for key in fields}, ensure_ascii=False)
    if schema:
        prompt = schema_prompt(text, json_schema({key: record[key] for key in fields}))
    else:
        prompt = json_prompt(text, fields)
        if split == v.TRAIN and rng.random() < 0.4:
            shown = rng.choice((", ".join(fields), anything.enumeration(rng, fields), json.dumps(fields)))
            prompt = fill(rng, rng.choice(FREE_FORMS), text=text, fields=shown)
    system = fill(rng, f"[|||{SYSTEM}]") if split == v.TRAIN else ""
    return chat("schema" if schema else "json", prompt, answer, system, keys=(answer,), free_text=(text,))
