"""A sentence to JSON with the fields that are asked for."""

import json
from collections.abc import Callable
from random import Random

from common.course_lm import corpus_values as v
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import SYSTEM, json_prompt

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
            "job": v.draw(rng, split, v.JOBS)}


def order(rng: Random, split: str) -> Record:
    """A purchase."""
    return {"customer": v.name(rng, split), "product": v.draw(rng, split, v.OBJECTS), "colour": v.draw(rng, split, v.COLOURS),
            "quantity": rng.randint(2, 40), "price": v.number(rng, split, 10, 999)}


def meeting(rng: Random, split: str) -> Record:
    """A meeting."""
    return {"topic": v.draw(rng, split, v.TOPICS), "day": v.draw(rng, split, v.WEEKDAYS), "hour": rng.randint(7, 20),
            "room": v.number(rng, split, 100, 999), "organiser": v.name(rng, split)}


def trip(rng: Random, split: str) -> Record:
    """A journey."""
    return {"traveller": v.name(rng, split), "origin": v.city(rng, split), "destination": v.city(rng, split),
            "month": v.draw(rng, split, v.MONTHS), "days": rng.randint(2, 30)}


def server(rng: Random, split: str) -> Record:
    """A server's settings."""
    return {"host": f"{v.invented(rng, split, 1, 2).lower()}-{rng.randint(1, 99)}", "port": v.number(rng, split, 1024, 9999),
            "gpus": rng.choice((1, 2, 4, 8)), "owner": v.name(rng, split), "region": v.city(rng, split)}


def firm(rng: Random, split: str) -> Record:
    """A company."""
    return {"company": v.company(rng, split), "city": v.city(rng, split), "founded": v.number(rng, split, 1850, 2024),
            "product": v.draw(rng, split, v.PRODUCTS).replace("_", " "), "employees": v.number(rng, split,
            100, 9999)}


# The last two sentences of each are the held-out split's. A sentence need not name every field.
SENTENCES: dict[Callable[[Random, str], Record], tuple[str, ...]] = {
    person: (
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
        "{customer} ordered {quantity} {colour} {product}s for {price} dollars.",
        "{customer} bought {quantity} {colour} {product}s and paid {price} dollars.",
        "An order came from {customer}: {quantity} {product}s, {colour}, {price} dollars in all.",
        "For {price} dollars, {customer} gets {quantity} {colour} {product}s.",
        "Please send {quantity} {colour} {product}s to {customer}. The price is {price} dollars.",
        "{customer} wants {quantity} {product}s in {colour} and will pay {price} dollars.",
        "We sold {quantity} {colour} {product}s to {customer} at {price} dollars.",
        "Order: {quantity} x {product}, {colour}, {price} USD, for {customer}.",
        "{quantity} {colour} {product}s were bought by {customer} for {price} dollars.",
        "The invoice for {customer} lists {quantity} {colour} {product}s, total {price} dollars.",
        "{customer} asked for a {product} in {colour}, {quantity} of them, {price} dollars together.",
        "{customer} bought {quantity} {product}s for {price} dollars.",
        "Hi, {customer} speaking, I'd like {quantity} {colour} {product}s. {price} dollars is fine.",
        "On the lorry are {quantity} {colour} {product}s; {customer} settled the {price} dollars already.",
        "{price} dollars changed hands when {customer} carried {quantity} {colour} {product}s out of our "
        "shop.", "[Our|A|The] customer {customer} [wants|ordered|bought|gets|needs] {quantity} {colour} "
        "{product}s for {price} dollars.", "The price [of|for] {quantity} {colour} {product}s is {price} "
        "dollars, [ordered by|for] {customer}.", "{quantity} {product}s in {colour} [cost|come to] {price} "
        "dollars for [our customer|] {customer}.",
        "For the {quantity} {colour} {product}s that {customer} [wants|bought], we get {price} dollars.",
        "[Today|Yesterday] "
        "{customer}, a customer, [took|received] {quantity} {colour} {product}s; the price was {price} "
        "dollars.", "Customer: {customer}. Product: {product}. Colour: {colour}. Quantity: {quantity}. "
        "Price: {price}.",
        "The order of {customer} is {quantity} {product}s, colour {colour}, price {price} dollars.",
        "{customer} will pay {price} dollars for {quantity} {product}s in {colour}.",
        "Our shop will send {customer} {quantity} {product}s in {colour}. That is {price} dollars.",
        "The price of the {quantity} {colour} {product}s that {customer} ordered is {price} dollars.",
        "Our customer {customer} will get {quantity} {product}s in {colour} for {price} dollars."),
    meeting: (
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


def extraction(rng: Random, split: str) -> Example:
    """Some of the fields of a sentence, in any order."""
    scenario = rng.choice(list(SENTENCES))
    record = scenario(rng, split)
    sentences = SENTENCES[scenario]
    template = rng.choice(sentences[:-2] if split == v.TRAIN else sentences[-2:])
    text = v.ask_noisily(rng, split, template, **record)
    record = mentioned(template, record)
    fields = rng.sample(list(record), rng.randint(2, len(record)))
    if split == v.TRAIN and rng.random() < 0.2:
        text = text + " " + rng.choice(("Thank you.", "See you soon.", "All is well.", "That is all we know.", "Please note it."))
    answer = json.dumps({key: record[key] for key in fields}, ensure_ascii=False)
    prompt = json_prompt(text, fields)
    if split == v.TRAIN and rng.random() < 0.4:
        shown = rng.choice((", ".join(fields), ", ".join(fields[:-1]) + " and " + fields[-1], json.dumps(fields)))
        prompt = fill(rng, rng.choice(FREE_FORMS), text=text, fields=shown)
    system = fill(rng, f"[|||{SYSTEM}]") if split == v.TRAIN else ""
    return chat("json", prompt, answer, system, keys=(answer,), free_text=(text,))
