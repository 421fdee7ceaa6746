"""Addition and subtraction of up to three digits: bare sums, questions and word problems."""

from random import Random

from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists
from common.course_lm.corpus_values import Example, chat, fill, say
from common.course_lm.prompts import SYSTEM, SYSTEM_BRIEF

ADD = (
    "{a} + {b}", "{a} + {b} =", "{a}+{b}", "What is {a} + {b}?", "What is {a} plus {b}?",
    "How much is {a} + {b}?",
    "Add {a} and {b}.", "[Compute|Calculate|Work out] {a} + {b}.", "[Please add|Sum up] {a} and {b}.",
    "What do you get when you add {b} to {a}?", "What is the sum of {a} and {b}?",
    "{a} plus {b} [is|makes|equals] what?",
    "[Give|Tell] me {a} plus {b}.", "If you add {a} and {b}, what [comes out|is the result]?",
    "Find the sum: {a} + {b}",
    "[Can|Could] you add {a} and {b}?", "Quick: {a} + {b}?", "What number is {b} more than {a}?",
    "{a} 加 {b} 等于多少？",
    "计算 {a} + {b}。", "{a}+{b}=?", "I need the total of {a} and {b}.", "{a} and {b} together make how much?",
    "请问 {a} 加上 {b} 是多少？", "Increase {a} by {b}.", "Evaluate {a} + {b}",
    "I have to put {b} to {a}. What is the sum?",
    "Which number is the sum of {a} and {b}?", "I must add {a} and {b}. Tell me the result.",
    "Please tell me how much {a} plus {b} is.",
    "We add {b} to {a}. Which number do we get?", "Find out what {a} and {b} make together.",
    "The number {a} plus the number {b} is?",
    "From {a} I count on by {b}. What number is that?", "I add {b} to {a}. How much is it?",
    "Sum, please: {a}, {b}.",
    "Put {a} and {b} together: which number results?", "Do you know how much {a} and {b} add up to?",
    "Starting at {a}, I go up by {b}. Where am I?", "Let us see, {a} + {b} would be?",
)
ADD_HELD_OUT = (
    "Which number do you get from {a} plus {b}?", "Please find out how much {a} and {b} are together.",
    "I have to add {b} to {a}. What is the result?", "Tell me the sum, please: {a} and {b}.",
)
SUBTRACT = (
    "{a} - {b}", "{a} - {b} =", "{a}-{b}", "What is {a} - {b}?", "What is {a} minus {b}?",
    "How much is {a} - {b}?",
    "Subtract {b} from {a}.", "[Compute|Calculate|Work out] {a} - {b}.", "Take {b} away from {a}.",
    "What is left when you take {b} from {a}?", "What is the difference of {a} and {b}?",
    "{a} minus {b} [is|makes|equals] what?", "[Give|Tell] me {a} minus {b}.",
    "Find the difference: {a} - {b}",
    "[Can|Could] you subtract {b} from {a}?", "Quick: {a} - {b}?", "What number is {b} less than {a}?",
    "{a} 减 {b} 等于多少？", "计算 {a} - {b}。", "{a}-{b}=?", "By how much is {a} larger than {b}?",
    "请问 {a} 减去 {b} 是多少？", "Decrease {a} by {b}.", "Evaluate {a} - {b}", "How far is it from {b} to {a}?",
    "I have to take {b} from {a}. What is left?", "Which number is the difference of {a} and {b}?",
    "I must subtract {b} from {a}. Tell me the result.",
    "Please tell me how much {a} minus {b} is.", "We subtract {b} from {a}. Which number do we get?",
    "Find out what {a} without {b} makes.",
    "The number {a} minus the number {b} is?", "From {a} I count back by {b}. What number is that?",
    "I subtract {b} from {a}. How much is it?",
    "Difference, please: {a}, {b}.", "What is {a} without {b}?", "{a} without {b}?",
    "Remove {b} out of {a}: which number remains?", "Do you know how much {a} without {b} would be?",
    "Starting at {a}, I go down by {b}. Where am I?", "Let us see, {a} - {b} would be?",
)
SUBTRACT_HELD_OUT = (
    "Which number do you get from {a} minus {b}?", "Please find out how much {a} without {b} is.",
    "I have to subtract {b} from {a}. What is the result?", "Tell me the difference, please: {a} and {b}.",
)
# Word problems: a person, a thing, a second person.
ADD_STORY = (
    "{name} has {a} {things} and [buys|gets|finds] {b} more. How many {things} does {name} have now?",
    "There are {a} {things} in a [box|room|shop] and {b} in another. How many are there in total?",
    "{name} has {a} {things} and {friend} has {b}. How many do they have together?",
    "A [shop|market] sold {a} {things} on {day} and {b} the next day. How many in both days?",
    "{name} read {a} pages on {day} and {b} pages later. How many pages in all?",
    "A [bus|train] has {a} [passengers|people], and {b} get on. How many [passengers|people] are on it now?",
    "{name} paid {a} dollars for a {thing} and {b} dollars for a {other}. What did {name} pay [altogether|in "
    "total]?",
    "{name} walked {a} metres, then {b} metres. How far did {name} walk?",
    "[One|The first] server answered {a} requests and [another|the second] {b}. How many requests were "
    "answered?",
    "A prompt has {a} tokens and its answer {b}. How many tokens is that in all?",
    "{name} collected {a} {things} and then {b} {others}. How many things is that?",
    "The cache holds {a} blocks; {b} more are added. How many blocks does it hold?",
    "In {month} {name} saved {a} euros, and {b} euros the month after. How much was saved?",
    "A [farm|garden] has {a} {animals} and {b} {others}. What is the total?",
    "{friend} gives {name} {b} {things}. {name} had {a} before. How many now?",
    "[A library|A school] owns {a} books and receives {b} new ones. How many books does it own then?",
    "{name} 有 {a} 个苹果，又买了 {b} 个，现在有多少个？", "第一天卖出 {a} 件，第二天卖出 {b} 件，一共多少件？",
    "A GPU served {a} requests before lunch and {b} after it. How many on that day?",
    "{name} scored {a} points, then {b} points. What is the [total|score]?",
    "{name} puts {a} {things} on the table. {friend} puts {b} there too. How many are on it?",
    "{name} baked {a} loaves and then {b} loaves more. How many loaves are there?",
    "Both trains are full: {a} people on one, {b} people on another. How many people is that in all?",
    "There are {a} words on one page and {b} words on another. How many words are on both?",
    "{friend} wrote {b} letters after {name} wrote {a}. What is the total?",
    "On {name}'s shelf there are {a} {things}. {friend} brings {b} more. How many are there now?",
    "{name} sees {a} {animals} on {day} and {b} the day after. How many {animals} is that?",
    "{name} and {friend} wrote {a} and {b} pages. How many pages are there in all?",
    "On a [shelf|desk|table] there are {a} {things}, and {name} puts {b} beside them. How many are there now?",
    "{name} counted {a} {things} and {friend} counted {b} {things}. How many {things} were counted in all?",
    "{name} sent {a} letters and {friend} sent {b} letters. How many letters were sent in all?",
    "{name} read {a} pages, {friend} read {b} pages. How many pages did they read in all?",
    "{name} sold {a} tickets and {friend} sold {b} tickets. How many tickets were sold?",
    "In {name}'s [garden|shop|house] there are {a} {animals}, and {friend} brings {b} more. How many are there then?",
    "{a} {things} lie on {name}'s table. {friend} brings another {b}. Count them all, please.",
    "After baking {a} loaves at dawn, {name} bakes {b} at noon. How big is the whole batch?",
    "Two lorries leave for the port, one with {a} crates, one with {b}. How many crates travel?",
    "{friend} typed {a} words, {name} typed {b} words; the report joins both. How long is it?",
)
ADD_STORY_HELD_OUT = (
    "There are {a} {things} on {name}'s table, and {friend} puts {b} more on it. How many are there now?",
    "{name} baked {a} loaves on {day} and {b} loaves the day after. What is the total?",
    "One train has {a} people, another train has {b}. How many people are on both?",
    "{friend} wrote {a} words and {name} wrote {b} words. How many words are there in all?",
)
SUBTRACT_STORY = (
    "{name} has {a} {things} and [sells|loses|gives away] {b}. How many {things} are left?",
    "There are {a} {things} in a [box|room|shop]. {b} are [taken|removed]. How many remain?",
    "A [bus|train] has {a} [passengers|people], and {b} get off. How many are still on it?",
    "{name} had {a} dollars and spent {b} on a {thing}. How much is left?",
    "A book has {a} pages and {name} has read {b}. How many pages are left?",
    "{name} has {a} {things}, {friend} has {b}. How many more has {name}?",
    "The cache holds {a} blocks and {b} are freed. How many are still used?",
    "[A shop|A market] had {a} {things} on {day} and sold {b}. How many were not sold?",
    "Of {a} requests, {b} have finished. How many are still running?",
    "{name} must walk {a} metres and has walked {b}. How far is it still?",
    "A context of {a} tokens has {b} tokens in use. How many are free?",
    "Of {a} {animals}, {b} ran away. How many stayed?",
    "{name} owes {a} euros and pays back {b}. How much does {name} still owe?",
    "In {month} there were {a} visitors, and {b} fewer the month after. How many came then?",
    "A tank held {a} litres; {b} litres leaked out. How many litres are in it?",
    "[A library|A school] owns {a} books and lends {b}. How many books stay?",
    "{name} 有 {a} 个苹果，吃了 {b} 个，还剩多少个？", "仓库有 {a} 件货，运走 {b} 件，还剩多少件？",
    "A queue of {a} requests shrinks by {b}. How long is it now?",
    "{name} is {a} cm tall, the {thing} is {b} cm. What is the difference?",
    "{name} puts {a} {things} on the table. {friend} takes {b} of them. How many stay there?",
    "{friend} takes {b} of {name}'s {a} {things}. How many are left now?",
    "{name} baked {a} loaves and sold {b} of them. How many loaves are there now?",
    "{name} baked {a} loaves. {friend} eats {b}. How many stay?",
    "A train has {a} people on it, and {b} people leave it. How many people are left on the train?",
    "On a page there are {a} words. {name} removed {b}. How many words stay?",
    "{name} wrote {a} letters and lost {b} of them. How many letters are left?",
    "On {name}'s shelf there are {a} {things}. {friend} takes away {b}. How many are there now?",
    "A ship starts with {a} people, and {b} leave. How many stay on it?",
    "{name} gives {b} of {a} {things} to {friend}. How many are left?",
    "{name} has {a} {things} and gives {b} of them to {friend}. How many has {name} now?",
    "On a [shelf|desk|table] there are {a} {things}, and {name} takes {b}. How many are there now?",
    "In {name}'s [garden|shop|house] there are {a} {animals}, and {friend} takes {b} of them. How many are there then?",
    "{name}'s box has {a} {things} in it, and {friend} takes {b}. How many are in it now?",
    "There were {a} {things} on {name}'s [shelf|desk], but {friend} took {b}. How many are there still?",
    "{name} has {a} {things}; {friend} takes {b}. How many has {name} now?",
    "{name} had {a} letters, and {friend} took {b}. How many are there now?",
    "From {a} {things} on the table {friend} takes {b}. What is left?",
    "{a} {things} lie on {name}'s table. {friend} carries {b} off. Count what stays, please.",
    "After baking {a} loaves, {name} hands {b} to the neighbours. How big is the rest?",
    "A lorry starts with {a} crates and unloads {b} at the port. How many crates travel on?",
    "{name} wrote {a} words and then deleted {b} of them. How long is the report?",
)
SUBTRACT_STORY_HELD_OUT = (
    "There are {a} {things} on {name}'s table, and {friend} takes {b}. How many are there now?",
    "{name} baked {a} loaves on {day} and gives {b} to {friend}. How many loaves are left?",
    "A train starts with {a} people and {b} get off. How many people stay on the train?",
    "{name} wrote {a} words and removed {b} of them. How many words are left?",
)


def equation(a: int, b: int, sign: str) -> str:
    """The answer form: the sum itself with its result."""
    return f"{a} {sign} {b} = {a + b if sign == '+' else a - b}"


def arithmetic(rng: Random, split: str) -> Example:
    """A sum as such, or as a word problem; a tenth under a system prompt that wants the result alone."""
    a, b = v.pair(rng, split)
    sign = rng.choice("+-")
    if sign == "-" and a < b and rng.random() < 0.95:
        a, b = b, a
    story = rng.random() < 0.5
    if story and sign == "-" and a < b:
        a, b = b, a
    if story:
        train, held_out = ((ADD_STORY, ADD_STORY_HELD_OUT) if sign == "+" else
                           (SUBTRACT_STORY, SUBTRACT_STORY_HELD_OUT))
        thing, other, animal = v.draw(rng, split, lists.OBJECTS), v.draw(rng, split, lists.OBJECTS), v.draw(rng, split, lists.ANIMALS)
        question = say(rng, split, train, held_out, a=a, b=b, thing=thing, things=v.plural(thing), other=other,
                       others=v.plural(other), animals=v.plural(animal), name=v.name(rng, split), friend=v.name(rng, split),
                       day=rng.choice(lists.WEEKDAYS), month=rng.choice(lists.MONTHS))
    else:
        train, held_out = (ADD, ADD_HELD_OUT) if sign == "+" else (SUBTRACT, SUBTRACT_HELD_OUT)
        question = say(rng, split, train, held_out, a=a, b=b)
    result = str(a + b if sign == "+" else a - b)
    brief = split == v.TRAIN and rng.random() < 0.15
    system = SYSTEM_BRIEF if brief else fill(rng, f"[|||{SYSTEM}]") if split == v.TRAIN else ""
    answer = result if brief else equation(a, b, sign)
    return chat("arithmetic", question, answer, system, keys=(result,), free_text=(question,))
