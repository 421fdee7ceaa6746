"""Function calls: choosing and filling one, answering after its result, loops of two calls, and answering without."""

import json
from collections.abc import Callable
from random import Random

from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists
from common.course_lm import prompts as p
from common.course_lm.corpus_anything import PROPERTIES, value
from common.course_lm.corpus_dialogue import SMALL_TALK, turn
from common.course_lm.corpus_terms import ask, terms
from common.course_lm.corpus_values import Example, fill

Record = dict[str, object]
Call = tuple[Record, str, str]   # arguments, the function's result, the answer after it


def weather(rng: Random, split: str) -> Call:
    """A city's weather."""
    place, tone, degrees = v.city(rng, split), rng.choice(lists.TONES), rng.randint(-15, 40)
    result = fill(rng, "[{t}, {d} degrees|{d} degrees, {t}|{t} and {d} degrees]", t=tone, d=degrees)
    if rng.random() < 0.4:
        result = json.dumps({"city": place, "weather": tone, "temperature": degrees})
    return {"city": place}, result, f"It is {tone} in {place} with {degrees} degrees."


def local_time(rng: Random, split: str) -> Call:
    """A city's time."""
    place, clock = v.city(rng, split), f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    return {"city": place}, rng.choice((clock, json.dumps({"time": clock}), f"{place}: {clock}")), f"It is {clock} in {place}."


def calculate(rng: Random, split: str) -> Call:
    """A calculation with any of the four signs."""
    sign = rng.choice("++--**/")
    a, b = v.pair(rng, split)
    if sign == "*":
        a, b = a % 90 + 10, b % 90 + 10
    if sign == "/":
        a, b = a * (b % 90 + 2), b % 90 + 2
    result = str({"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign])
    return {"expression": f"{a} {sign} {b}"}, result, f"The result is {result}."


def order(rng: Random, split: str) -> Call:
    """An order's status."""
    code = f"{rng.choice('ABCDEFGHKLMNPRST')}{v.number(rng, split, 1000, 9999)}"
    status = rng.choice(("shipped", "delivered", "packed", "cancelled", "paid", "delayed", "returned"))
    return {"order_id": code}, rng.choice((status, json.dumps({"status": status}), f"order {code}: {status}")), f"Order {code} is {status}."


def timer(rng: Random, split: str) -> Call:
    """A timer."""
    minutes = rng.randint(1, 90)
    return {"minutes": minutes}, rng.choice(("ok", "done", '{"ok": true}', "timer set")), f"The timer rings in {minutes} minutes."


def event(rng: Random, split: str) -> Call:
    """A calendar entry."""
    title = v.draw(rng, split, lists.TOPICS) + rng.choice((" meeting", " review", " talk", " lunch"))
    day, hour = rng.choice(lists.WEEKDAYS), rng.randint(7, 20)
    return {"title": title, "day": day, "hour": hour}, rng.choice(("ok", "done", "created")), f"The {title} is in your calendar on {day} at {hour}."


def email(rng: Random, split: str) -> Call:
    """An email."""
    to, subject = f"{v.name(rng, split).lower()}@{v.invented(rng, split, 2, 2).lower()}.com", v.draw(rng, split, lists.TOPICS)
    return {"to": to, "subject": subject}, rng.choice(("ok", "sent", "done")), f"I sent the email to {to}."


def convert(rng: Random, split: str) -> Call:
    """A currency conversion."""
    amount, result = v.number(rng, split, 10, 999), rng.randint(10, 9999)
    source, target = rng.sample(lists.CURRENCIES, 2)
    return ({"amount": amount, "source": source, "target": target}, rng.choice((str(result), f"{result} {target}")),
            f"{amount} {source} are {result} {target}.")


def table(rng: Random, split: str) -> Call:
    """A restaurant table."""
    restaurant, people, hour = v.invented(rng, split), rng.randint(2, 12), rng.randint(11, 22)
    return ({"restaurant": restaurant, "people": people, "hour": hour}, rng.choice(("ok", "booked", "confirmed")),
            f"A table for {people} is booked at {restaurant} at {hour}.")


SUBJECTS = ("population", "price", "height", "length", "age", "capacity", "weight", "speed", "salary", "area")


def searched(rng: Random, split: str) -> tuple[str, int, str]:
    """A query, the number that answers it, and what the search returns."""
    query, value = f"{rng.choice(SUBJECTS)} of {v.invented(rng, split)}", v.number(rng, split, 10, 999)
    return query, value, fill(rng, "[The {q} is {x}.|{q}: {x}|{x}|{x} ({q})|We found: the {q} is {x}.]", q=query, x=value)


def lookup(rng: Random, split: str) -> Call:
    """A fact to search for."""
    query, value, result = searched(rng, split)
    return {"query": query}, result, f"The {query} is {value}."


# Per function: the call, requests in words (the last two held out). Slots are the arguments' names.
REQUESTS: dict[str, tuple[Callable[[Random, str], Call], tuple[str, ...]]] = {
    "get_weather": (weather, (
        "[What is|How is|What's] the weather in {city}[| today| now]?",
        "Is it [raining|warm|cold|sunny] in {city}?", "Weather in {city}[?|, please.]",
        "Tell me the weather in {city}.", "Do I need [an umbrella|a coat] in {city}?",
        "How [warm|cold|hot] is it in {city}?", "What is it like outside in {city}?",
        "I am [travelling|flying] to {city}. How is the weather[| there]?",
        "[Check|Get] the weather for {city}.", "{city} 天气怎么样？", "What temperature does {city} have?",
        "My trip leads to {city}; shall I pack for sun or for snow?", "Look at the sky above {city} for me.",
        "Can you tell me how the weather is in {city}?", "I want to know if it is cold in {city}.")),
    "get_time": (local_time, (
        "What time is it in {city}?", "[Tell|Give] me the time in {city}.",
        "What's the [local |]time in {city}?", "Time in {city}[?|, please.]", "How late is it in {city}?",
        "I want to call someone in {city}. What time is it there?", "Is it [late|early|night] in {city}?",
        "[Check|Get] the local time of {city}.", "{city} 现在几点？", "What does the clock say in {city}?",
        "Would I wake somebody up if I rang {city} right now?", "Which hour do the bells of {city} strike?",
        "Can you tell me what time it is now in {city}?", "I need the local time of {city}, please.")),
    "calculator": (calculate, (
        "What is {expression}?", "[Compute|Calculate|Evaluate|Work out] {expression}.", "{expression}",
        "How much is {expression}?", "[Please|Can you] calculate {expression}[|.]",
        "Use the calculator: {expression}", "I need the result of {expression}.",
        "What does {expression} give?", "Find {expression}.", "计算 {expression}。",
        "Solve {expression}[.|, please.]",
        "My homework says {expression}; check it by machine.",
        "Punch {expression} into the calculator for me.", "Can you work out how much {expression} is?",
        "Please tell me the result of {expression}.")),
    "order_status": (order, (
        "Where is [my |]order {order_id}?", "What is the status of [my |]order {order_id}?",
        "[Check|Look up] order {order_id}.", "Has order {order_id} been [shipped|delivered|paid]?",
        "Order {order_id}: any news?",
        "I ordered something, the number is {order_id}. Where is it?", "When does {order_id} arrive?",
        "[Track|Find] {order_id}.", "订单 {order_id} 到哪了？", "Is {order_id} on its way?",
        "Still waiting for parcel {order_id}, what happened to it?",
        "My receipt says {order_id}; has anything moved?", "Can you tell me where order {order_id} is now?",
        "I want to know the status of {order_id}.")),
    "set_timer": (timer, (
        "Set a timer [for|to] {minutes} minutes.", "[Start|Make] a timer of {minutes} minutes.",
        "Wake me in {minutes} minutes.", "Timer: {minutes} minutes.", "Remind me in {minutes} minutes.",
        "Ring in {minutes} minutes.",
        "I need a {minutes} minute timer.", "The [eggs|noodles] take {minutes} minutes. Set a timer.",
        "Please set {minutes} minutes.", "设一个 {minutes} 分钟的定时器。", "Count down {minutes} minutes.",
        "Let something beep once {minutes} minutes have passed.",
        "My dough rests {minutes} minutes from now; ring then.",
        "Can you wake me when {minutes} minutes have passed?",
        "I want a timer that rings in {minutes} minutes.")),
    "create_event": (event, (
        "[Put|Add] {title} on {day} at {hour} [in|into|to] my calendar.",
        "[Create|Make] an event: {title}, {day}, {hour} o'clock.",
        "Schedule {title} [for|on] {day} at {hour}.", "On {day} at {hour} I have {title}. Note it.",
        "Plan {title} for {day}, {hour}:00.", "I have a {title} on {day} at {hour}. Put it in the calendar.",
        "New event {title} on {day} at {hour}.", "Save the date: {title} on {day} at {hour}.",
        "Add the {title} to {day}, {hour} o'clock.", "Calendar: {day} {hour}, {title}.",
        "Please save {title} for {day} at {hour}.", "Save {title}: {day}, {hour} o'clock.",
        "Keep {day} at {hour} free for {title}.", "Can you add a {title} to the calendar on {day} at {hour}?",
        "Please put the {title} into my calendar: {day}, {hour} o'clock.",
        "An event: the {title}, on {day} at {hour}.", "[Note|Store] the {title}[.|:] {day}, {hour} o'clock[, please|].",
        "[Please|Kindly] keep an entry: {title}, it is on {day} at {hour}.", "On {day} there is the {title} at {hour} o'clock; save it.",
        "The {title} comes up on {day}, {hour} o'clock. Please add it.", "The {title} was set for {day} at {hour}. Can you note that?", "Into the calendar for {day} at {hour}: {title}.",
        "Block {hour} o'clock this {day}, since {title} comes up.",
        "Can you put a {title} into the calendar for {day} at {hour}?",
        "Please save an event: the {title} is on {day} at {hour} o'clock.")),
    "send_email": (email, (
        "[Send|Write] an email to {to} about {subject}.", "[Email|Mail] {to} about {subject}.",
        "Write to {to}. The subject is {subject}.", "Send {to} a message on {subject}.",
        "An email to {to} with the subject {subject}[.|, please.]",
        "Please [write|mail] {to} on the subject of {subject}.",
        "I want to email {to} about {subject}.", "Tell {to} by email about {subject}.",
        "Contact {to} about {subject}.", "[Please |]write {to} a [note|line|mail] on {subject}.",
        "[Send|Mail] a message to {to}[:| on] {subject}.", "{subject} is what {to} should hear about; [mail|write] it.", "给 {to} 发一封关于 {subject} 的邮件。", "Drop {to} a mail: {subject}.",
        "Write a message to {to} about {subject}.", "Please send a mail about {subject} to {to}.",
        "About {subject}: write to {to}.", "A message on {subject} should go to {to}.",
        "Can you email {to}? The subject is {subject}.", "I need an email about {subject} sent to {to}.",
        "Let {to} hear from me; headline it {subject}.", "Reach out via mail at {to}, topic {subject}.",
        "Can you send {to} an email with the subject {subject}?",
        "Please write a message about {subject} to {to}.")),
    "convert_currency": (convert, (
        "[Convert|Change|Exchange] {amount} {source} [to|into] {target}.",
        "How [many|much] {target} are {amount} {source}?", "What is {amount} {source} in {target}?",
        "{amount} {source} in {target}?", "I have {amount} {source} and want {target}. How many?",
        "How much is {amount} {source} in {target}?",
        "Give me {amount} {source} as {target}.", "What do I get in {target} for {amount} {source}?",
        "{amount} {source} to {target}[.|, please.]", "{amount} {source} 是多少 {target}？",
        "My wallet holds {amount} {source}, the shop takes {target} alone. What are they worth?",
        "Swap {amount} {source} against {target} on paper.",
        "Can you tell me how much {target} I get for {amount} {source}?",
        "I want to change {amount} {source} into {target}.")),
    "book_table": (table, (
        "[Book|Reserve] a table for {people} at {restaurant} at {hour}.",
        "A table at {restaurant} for {people} people at {hour} o'clock[.|, please.]",
        "We are {people} and want to eat at {restaurant} at {hour}.",
        "Get us a table at {restaurant}, {people} people, {hour} o'clock.",
        "I want a table for {people} at {hour} at {restaurant}.",
        "Please book {restaurant} for {people} at {hour}.", "Dinner at {restaurant} at {hour} for {people}.",
        "{restaurant}, {hour} o'clock, {people} people: please book.",
        "Reserve {people} seats at {restaurant} for {hour} o'clock.",
        "Please reserve a table for {people} at {restaurant}, {hour} o'clock.",
        "Can you book a table for {people} people at {restaurant} at {hour}?",
        "Tell {restaurant} that {people} hungry guests arrive at {hour}.",
        "{people} of us will dine from {hour} at {restaurant}, so see to it.",
        "We want to eat at {restaurant}: a table for {people} at {hour} o'clock, please.",
        "Can you reserve {restaurant} at {hour} for {people} people?")),
    "search": (lookup, (
        "What is the {query}?", "[Search|Look] for the {query}.", "Find [out |]the {query}.",
        "[Tell|Give] me the {query}.", "I need the {query}.", "Look up the {query}.",
        "Do you know the {query}?", "{query}?", "Which is the {query}?", "请查 {query}。",
        "[Please|Can you] search the {query}[.|?]",
        "Dig out the {query} from somewhere.", "No book here names the {query}; hunt it down.",
        "Can you find out what the {query} is?", "I want to know the {query}.")),
}
BY_NAME = {t["function"]["name"]: t for t in p.TOOLS}


def tool_call(tool: str, arguments: Record) -> dict:
    """The assistant's message that calls a function."""
    return {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": tool, "arguments": arguments}}]}


def offered(rng: Random, *needed: str) -> tuple[dict, ...]:
    """The functions on offer: those needed and up to three others."""
    others = [name for name in BY_NAME if name not in needed]
    chosen = list(needed) + rng.sample(others, rng.choice((0, 1, 1, 2, 3)))
    rng.shuffle(chosen)
    return tuple(BY_NAME[name] for name in chosen)


def call_text(tool: str, arguments: Record) -> str:
    """What the model writes to call a function."""
    return p.render([tool_call(tool, arguments)])[1][0].removesuffix("<|im_end|>")


def request(rng: Random, split: str, tool: str) -> tuple[str, Call]:
    """A request in words for one function, and its call."""
    make, templates = REQUESTS[tool]
    call = make(rng, split)
    text = v.ask_noisily(rng, split, rng.choice(templates[:-2] if split == v.TRAIN else templates[-2:]), **call[0])
    return text[0].upper() + text[1:], call


def single_call(rng: Random, split: str) -> Example:
    """A request, the call; in training usually the result and the answer too, and perhaps a second request."""
    tool = rng.choice(list(REQUESTS))
    text, (arguments, result, answer) = request(rng, split, tool)
    messages = [{"role": "user", "content": text}, tool_call(tool, arguments)]
    tools = offered(rng, tool)
    if split == v.HELD_OUT:
        expected = call_text(tool, arguments)
        return Example("tool_call", tuple(messages), tools, answer=expected, keys=(expected,), free_text=(text,))
    if rng.random() < 0.3:
        messages.insert(0, {"role": "system", "content": rng.choice((p.SYSTEM, p.SYSTEM_AGENT))})
    messages += [{"role": "tool", "content": result}, {"role": "assistant", "content": answer}]
    if rng.random() < 0.25:
        other = rng.choice([t["function"]["name"] for t in tools])
        text, (arguments, result, answer) = request(rng, split, other)
        messages += [{"role": "user", "content": text}, tool_call(other, arguments),
                     {"role": "tool", "content": result}, {"role": "assistant", "content": answer}]
    return Example("tool_call", tuple(messages), tools)


def after_result(rng: Random, split: str) -> Example:
    """The answer after a function's result."""
    tool = rng.choice(list(REQUESTS))
    text, (arguments, result, answer) = request(rng, split, tool)
    messages = ({"role": "user", "content": text}, tool_call(tool, arguments),
                {"role": "tool", "content": result}, {"role": "assistant", "content": answer})
    return Example("tool_answer", messages, offered(rng, tool), answer=answer, keys=(answer,), free_text=(text,))


AGENT_ADD = ("What is the {q} plus {n}?", "Add {n} to the {q}.", "[Find|Search] the {q} and add {n}.", "How much is the {q} and {n} together?",
             "Take the {q} and add {n}.", "I need the {q} plus {n}.", "Look up the {q}, then add {n}.",
             "What do you get when you add {n} to the {q}?",
             "Dig out the {q} and pile {n} on it.", "I want to know the {q} plus {n}.")
AGENT_SUBTRACT = ("What is the {q} minus {n}?", "Subtract {n} from the {q}.", "[Find|Search] the {q} and subtract {n}.", "How much is the {q} without {n}?",
                  "Take {n} away from the {q}.", "I need the {q} minus {n}.",
                  "Look up the {q}, then subtract {n}.", "Dig out the {q} and cut {n} off it.",
                  "I want to know the {q} minus {n}.")
AGENT_TIMES = ("What is the {q} times {n}?", "Multiply the {q} by {n}.", "[Find|Search] the {q} and multiply it by {n}.", "I need the {q} times {n}.",
               "Look up the {q}, then multiply by {n}.", "Dig out the {q} and stack it {n} times.",
               "I want to know the {q} times {n}.")


AGENT_TWO = ("What is the {q} plus the {r}?", "Add the {q} and the {r}.", "[Find|Search] the {q} and the {r} and add them.", "How much are the {q} and the {r} together?",
             "Sum up the {q} and the {r}.", "I need the {q} and the {r} in one sum.", "Look up the {q}, look up the {r}, then add both.",
             "The {q} and the {r}: what is the sum of both?",
             "I want to know what the {q} and the {r} add up to.")


def agent(rng: Random, split: str) -> Example:
    """A loop of two or three calls: search one fact or two, calculate with it, answer. Held out: its middle or its end."""
    query, value, result = searched(rng, split)
    steps, other = [("search", {"query": query}, result)], None
    if rng.random() < 0.25:
        other, n, second = searched(rng, split)
        steps.append(("search", {"query": other}, second))
        sign, templates = "+", AGENT_TWO
    else:
        sign, templates = rng.choice((("+", AGENT_ADD), ("-", AGENT_SUBTRACT), ("*", AGENT_TIMES)))
        n = v.number(rng, split, 2, 99) if sign == "*" else v.number(rng, split, 2, 999)
    template = rng.choice(templates[:-1] if split == v.TRAIN else templates[-1:])
    text = v.ask_noisily(rng, split, template, q=query, n=n, r=other)
    total = {"+": value + n, "-": value - n, "*": value * n}[sign]
    steps.append(("calculator", {"expression": f"{value} {sign} {n}"}, str(total)))
    messages: list[dict] = [{"role": "user", "content": text}]
    for name, arguments, content in steps:
        messages += [tool_call(name, arguments), {"role": "tool", "content": content}]
    messages.append({"role": "assistant", "content": f"The result is {total}."})
    tools = offered(rng, "search", "calculator")
    if split == v.HELD_OUT:
        expected = messages[-1]["content"]
        if rng.random() < 0.5:  # a call after the first: the second search or the sum
            step = rng.randint(1, len(steps) - 1)
            messages = messages[: 2 * step + 2]
            expected = call_text(*steps[step][:2])
        return Example("agent", tuple(messages), tools, answer=expected, keys=(expected,), free_text=(text,))
    if rng.random() < 0.5:
        messages.insert(0, {"role": "system", "content": p.SYSTEM_AGENT})
    return Example("agent", tuple(messages), tools)


TOOL_VERBS = """archive cancel check close compare copy count create delete export find import list lock move open pause
print read rename reset send start stop update""".split()


def any_tool(rng: Random) -> tuple[dict, str, Record]:
    """A function of training that no other document has, with a request for it and the arguments."""
    verb, nouns = rng.choice(TOOL_VERBS), rng.sample(sorted({*PROPERTIES} - {"name"}), 3)
    if rng.random() < 0.5:
        nouns[0] = v.invented(rng, v.TRAIN, 1, 2).lower()
    arguments = {noun: value(rng, v.TRAIN) for noun in nouns[: rng.randint(1, 3)]}
    kinds = {str: "string", int: "integer", float: "number"}
    definition = p.tool(f"{verb}_{nouns[0]}", f"{v.capital(verb)} a {nouns[0]}.",
                        **{noun: f"{kinds[type(x)]}: the {noun}" for noun, x in arguments.items()})
    form = "[Please |Can you |I want you to |]{verb} [the |]{noun} {x}"
    form += ("[ with |, |: ]{rest}" if len(arguments) > 1 else "") + "[.||.|?]"
    rest = " and ".join(f"{noun} {x}" for noun, x in list(arguments.items())[1:])
    text = fill(rng, form, verb=verb, noun=nouns[0], x=arguments[nouns[0]], rest=rest)
    return definition, v.capital(text), arguments


def new_function(rng: Random) -> Example:
    """A call of a function that is known from its definition alone."""
    definition, text, arguments = any_tool(rng)
    name = definition["function"]["name"]
    others = [rng.choice(p.TOOLS) if rng.random() < 0.4 else any_tool(rng)[0] for _ in range(rng.choice((0, 1, 2, 3)))]
    tools = list({tool["function"]["name"]: tool for tool in [*others, definition]}.values())
    rng.shuffle(tools)
    result = rng.choice(("ok", "done", '{"ok": true}'))
    messages = [{"role": "user", "content": text}, tool_call(name, arguments), {"role": "tool", "content": result},
                {"role": "assistant", "content": "Done."}]
    return Example("tool_call", tuple(messages), tuple(tools))


def no_call(rng: Random, split: str) -> Example:
    """Functions on offer, but the question needs none: a term or small talk."""
    if rng.random() < 0.5:
        user, answer = rng.choice(SMALL_TALK)
        messages = turn(fill(rng, user), answer)
    else:
        term, language = rng.choice(terms()), rng.choice(("en", "zh"))
        messages = turn(ask(rng, split, term, language), term[f"definition_{language}"])
    return Example("tool_call", tuple(messages), offered(rng, rng.choice(list(REQUESTS))))


def tools(rng: Random, split: str) -> Example:
    """A training document with functions on offer."""
    kind = rng.random()
    if kind < 0.6:
        return single_call(rng, split)
    if kind < 0.72:
        return new_function(rng)
    return agent(rng, split) if kind < 0.92 else no_call(rng, split)
