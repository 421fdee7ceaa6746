"""Short Python functions with their docstrings, as raw text to continue and in a chat."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from common.course_lm import corpus_values as v
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import CODE_FORM, SYSTEM_CODE, function_head


@dataclass(frozen=True)
class Function:
    """A function to write: names to choose from, arguments, docstrings (the second is held out), body, test calls.

    `{k}` in names, docstrings and body is a number; `calls` are argument lists as source text.
    """

    names: tuple[str, ...]
    arguments: tuple[str, ...]
    docstrings: tuple[str, ...]
    body: str
    calls: tuple[str, ...]
    constants: tuple[int, ...] = (0,)


# Every condition below holds for some number of each.
LIST_CALLS = ("[3, -4, 10, 7, 6, 0, 45, -9, 504]", "[-8, 9, 30, 15, -3, 1, 56, 48, 0]", "[1, 2, 3, 4, 12, -7, 72, 40, 0]")
# Which numbers of a list: words in a name, in docstrings, the condition on n.
CONDITIONS = (
    ("", ("all numbers", "the numbers", "all values", "the items", "all items"), ""),
    ("even", ("the even numbers", "all even numbers", "all numbers that are even", "the even values",
     "the numbers that are even"), "n % 2 == 0"),
    ("odd", ("the odd numbers", "all odd numbers", "all numbers that are odd", "the odd values",
     "the numbers that are odd"), "n % 2 == 1"),
    ("positive", ("the positive numbers", "all positive numbers", "all numbers above zero",
     "the values over zero", "the numbers above zero"), "n > 0"),
    ("negative", ("the negative numbers", "all negative numbers", "all numbers below zero",
     "the values under zero", "the numbers below zero"), "n < 0"),
    ("greater", ("the numbers greater than {k}", "all numbers above {k}", "all numbers larger than {k}",
     "the values over {k}", "the numbers above {k}"), "n > {k}"),
    ("less", ("the numbers less than {k}", "all numbers below {k}", "all numbers smaller than {k}",
     "the values under {k}", "the numbers below {k}"), "n < {k}"),
    ("divisible", ("the numbers divisible by {k}", "all multiples of {k}", "all numbers that {k} divides",
     "the values which {k} divides", "the numbers that {k} divides"), "n % {k} == 0"),
)
# What to do with each number first.
TRANSFORMS = (
    ("", "", "n"), ("squares", "the squares of ", "n * n"), ("doubles", "the doubles of ", "2 * n"),
     ("absolute", "the absolute values of ", "abs(n)"),
    ("cubes", "the cubes of ", "n ** 3"),
)
# What to make of the list: name, docstrings, expression over a generator.
AGGREGATES = (
    ("sum", ("Return the sum of {what}.", "Add up {what} of the list.", "Sum {what} in the list.",
     "Compute the total of {what}.", "Total {what} and hand the result back.", "Compute the sum of {what}."),
     "sum({each})"),
    ("list", ("Return a list of {what}.", "Return {what} as a list.", "Collect {what} of the list.",
     "Make a list of {what}.", "Gather {what} and hand the list back.", "Return {what} in a list."),
     "[{each}]"),
    ("max", ("Return the largest of {what}.", "Find the maximum of {what}.", "Return the maximum of {what}.",
     "Pick the largest of {what}.", "Hand back whichever of {what} is biggest.",
     "Compute the maximum of {what}."), "max({each})"),
    ("min", ("Return the smallest of {what}.", "Find the minimum of {what}.", "Return the minimum of {what}.",
     "Pick the smallest of {what}.", "Hand back whichever of {what} is tiniest.",
     "Compute the minimum of {what}."), "min({each})"),
    ("count", ("Count {what}.", "Return how many there are of {what}.", "Return the count of {what}.",
     "Return the number of {what}.", "Say how often one meets {what}.", "Find how many there are of {what}."),
     "len([{each}])"),
)
ARGUMENT_NAMES = ("numbers", "values", "items", "xs")


def list_functions() -> Iterator[Function]:
    """Every aggregate of every transform of every condition."""
    for aggregate, docstrings, expression in AGGREGATES:
        for condition, wordings, test in CONDITIONS:
            for transform, prefix, item in TRANSFORMS:
                if (aggregate in ("max", "min", "count") and transform) or (not condition and not transform and aggregate == "list"):
                    continue
                # The last wording of the condition goes with the last docstring: both are held out, in second place.
                pairs = [(d, w) for d in docstrings[:-1] for w in wordings[:-1]]
                pairs.insert(1, (docstrings[-1], wordings[-1]))
                texts = tuple(d.format(what=prefix + w) for d, w in pairs)
                for argument in ARGUMENT_NAMES:
                    each = f"{item} for n in {argument}" + (f" if {test}" if test else "")
                    names = ("_".join(part for part in ("get", aggregate, transform, condition) if part),
                             "_" .join(part for part in (aggregate, "of", transform, condition, argument) if
                             part))
                    constants = tuple(range(2, 10)) if "{k}" in test else (0,)
                    yield Function(names, (argument,), texts, "return " + expression.format(each=each), LIST_CALLS, constants)


K = tuple(range(2, 30))
TEXT_CALLS = ('"hello world"', '"Level"', '"a b  c"')
OTHERS = (
    Function(("add_{k}", "plus_{k}", "increase"), ("x",), ("Return x plus {k}.", "Add {k} to x.", "Return the number increased by {k}.", "Make x larger by {k}."), "return x + {k}", ("3", "-8"), K),
    Function(("subtract_{k}", "minus_{k}", "decrease"), ("x",), ("Return x minus {k}.", "Subtract {k} from x.", "Return the number decreased by {k}.", "Make x smaller by {k}."), "return x - {k}", ("3", "-8"), K),
    Function(("times_{k}", "multiply_by_{k}", "scale"), ("x",), ("Return x times {k}.", "Multiply x by {k}.", "Return the number multiplied by {k}.", "Scale x up {k} times."), "return x * {k}", ("3", "-8"), K),
    Function(("is_divisible_by_{k}", "divisible", "check_divisible"), ("n",), ("Return True if n is divisible by {k}.", "Check whether {k} divides n.", "Tell if n is a multiple of {k}.", "Say whether n splits into groups of {k}."), "return n % {k} == 0", ("12", "7", "30"), K),
    Function(("greater_than_{k}", "is_above", "exceeds"), ("n",), ("Return True if n is greater than {k}.", "Check whether n is above {k}.", "Tell if n is more than {k}.", "Say whether n tops {k}."), "return n > {k}", ("5", "40"), K),
    Function(("remainder", "modulo", "mod_{k}"), ("n",), ("Return the remainder of n divided by {k}.", "Return n modulo {k}.", "Compute what is left when n is divided by {k}.", "Hand back the rest of n over {k}."), "return n % {k}", ("12", "101"), K),
    Function(("add", "add_numbers", "total"), ("a", "b"), ("Return the sum of a and b.", "Add two numbers.", "Return a plus b.", "Put a and b together."), "return a + b", ("3, 4", "-1, 8")),
    Function(("multiply", "product", "times"), ("a", "b"), ("Return the product of a and b.", "Multiply two numbers.", "Return a times b.", "Take a as often as b says."), "return a * b", ("3, 4", "-1, 8")),
    Function(("difference", "subtract", "minus"), ("a", "b"), ("Return the difference of a and b.", "Subtract b from a.", "Return a minus b.", "Take b away from a."), "return a - b", ("3, 4", "-1, 8")),
    Function(("distance", "gap", "absolute_difference"), ("a", "b"), ("Return the absolute difference of a and b.", "Return the distance between a and b.", "Compute how far a and b are apart.", "Measure the gap from a to b, never negative."), "return abs(a - b)", ("3, 14", "-1, 8")),
    Function(("larger", "maximum", "max_of_two"), ("a", "b"), ("Return the larger of a and b.", "Return the maximum of two numbers.", "Pick the bigger of a and b.", "Hand back whichever number is biggest."), "return max(a, b)", ("3, 14", "9, 8")),
    Function(("smaller", "minimum", "min_of_two"), ("a", "b"), ("Return the smaller of a and b.", "Return the minimum of two numbers.", "Pick the lesser of a and b.", "Hand back whichever number is tiniest."), "return min(a, b)", ("3, 14", "9, 8")),
    Function(("average", "mean", "mean_value"), ("numbers",), ("Return the average of the numbers.", "Compute the mean of the list.", "Return the mean of the numbers.", "Find the middle value by dividing the total by the count."), "return sum(numbers) / len(numbers)", ("[1, 2, 6]", "[4]")),
    Function(("factorial", "fact", "n_factorial"), ("n",), ("Return the factorial of n.", "Compute n factorial.", "Return the product of 1 to n.", "Multiply every number from 1 up to n."), "result = 1\n    for i in range(2, n + 1):\n        result *= i\n    return result", ("1", "5", "7")),
    Function(("fibonacci", "fib", "nth_fibonacci"), ("n",), ("Return the n-th Fibonacci number.", "Compute the n-th number of the Fibonacci sequence.", "Return Fibonacci number n.", "Walk n steps along Fibonacci and hand back the number."), "a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a", ("1", "7", "10")),
    Function(("gcd", "greatest_common_divisor", "common_divisor"), ("a", "b"), ("Return the greatest common divisor of a and b.", "Compute the gcd of two numbers.", "Return the largest number that divides a and b.", "Find the biggest divisor which a shares with b."), "while b:\n        a, b = b, a % b\n    return a", ("12, 18", "7, 5")),
    Function(("is_even", "even", "check_even"), ("n",), ("Return True if n is even.", "Check whether n is even.", "Tell if n is an even number.", "Say whether n can be halved."), "return n % 2 == 0", ("4", "7")),
    Function(("is_odd", "odd", "check_odd"), ("n",), ("Return True if n is odd.", "Check whether n is odd.", "Tell if n is an odd number.", "Say whether halving n leaves one over."), "return n % 2 == 1", ("4", "7")),
    Function(("is_prime", "prime", "check_prime"), ("n",), ("Return True if n is prime.", "Check whether n is a prime number.", "Tell if n is prime.", "Say whether only 1 and n divide n."), "if n < 2:\n        return False\n    return all(n % i for i in range(2, int(n ** 0.5) + 1))", ("1", "7", "9", "2")),
    Function(("square", "squared", "power_two"), ("x",), ("Return the square of x.", "Square x.", "Return x squared.", "Take x times itself."), "return x * x", ("3", "-5")),
    Function(("celsius_to_fahrenheit", "to_fahrenheit", "c_to_f"), ("c",), ("Convert degrees Celsius to Fahrenheit.", "Return c degrees Celsius in Fahrenheit.", "Turn Celsius into Fahrenheit.", "Express a Celsius temperature the Fahrenheit way."), "return c * 9 / 5 + 32", ("0", "100")),
    Function(("digit_sum", "sum_digits", "sum_of_digits"), ("n",), ("Return the sum of the digits of n.", "Add up the digits of n.", "Compute the digit sum of n.", "Total each digit that n is written with."), "return sum(int(d) for d in str(n))", ("123", "907")),
    Function(("clamp", "limit", "bound"), ("x", "low", "high"), ("Limit x to the range from low to high.", "Return x, but not below low or above high.", "Clamp x between low and high.", "Keep x from leaving low and high."), "return max(low, min(x, high))", ("5, 1, 3", "0, 1, 3", "2, 1, 3")),
    Function(("reverse", "reverse_text", "backwards"), ("text",), ("Return the text reversed.", "Reverse the string.", "Return the string backwards.", "Turn the text front to back."), "return text[::-1]", TEXT_CALLS),
    Function(("count_vowels", "vowels", "number_of_vowels"), ("text",), ("Count the vowels in the text.", "Return the number of vowels.", "Return how many vowels the text has.", "Say how often a, e, i, o or u comes up."), "return sum(ch in \"aeiou\" for ch in text.lower())", TEXT_CALLS),
    Function(("is_palindrome", "palindrome", "check_palindrome"), ("text",), ("Return True if the text is a palindrome.", "Check whether the text reads the same backwards.", "Tell if the string is a palindrome.", "Say whether a mirror leaves the text alone."), "return text == text[::-1]", ('"level"', '"abc"')),
    Function(("count_words", "word_count", "number_of_words"), ("text",), ("Count the words in the text.", "Return the number of words.", "Return how many words the text has.", "Say how many pieces blanks cut the text into."), "return len(text.split())", TEXT_CALLS),
    Function(("upper", "to_upper", "shout"), ("text",), ("Return the text in upper case.", "Convert the string to upper case.", "Make all letters upper case.", "Write every letter as a capital."), "return text.upper()", TEXT_CALLS),
    Function(("lower", "to_lower", "whisper"), ("text",), ("Return the text in lower case.", "Convert the string to lower case.", "Make all letters lower case.", "Write no letter as a capital."), "return text.lower()", TEXT_CALLS),
    Function(("remove_spaces", "without_spaces", "strip_spaces"), ("text",), ("Remove all spaces from the text.", "Return the text without spaces.", "Delete the spaces of the string.", "Close every gap between the words."), "return text.replace(\" \", \"\")", TEXT_CALLS),
    Function(("count_letter", "letter_count", "count_char"), ("text", "letter"), ("Count how often the letter is in the text.", "Return the number of times letter occurs.", "Return how many times the text has the letter.", "Say how many copies of letter one meets."), "return text.count(letter)", ('"hello", "l"', '"abc", "z"')),
    Function(("longest_word", "find_longest", "longest"), ("words",), ("Return the longest word.", "Find the longest word of the list.", "Return the word with the most letters.", "Hand back whichever word stretches furthest."), "return max(words, key=len)", ('["a", "bcd", "ef"]',)),
    Function(("word_lengths", "lengths", "get_lengths"), ("words",), ("Return the lengths of the words.", "Return a list of the word lengths.", "Compute the length of each word.", "Measure every word and list the results."), "return [len(word) for word in words]", ('["a", "bcd", "ef"]',)),
    Function(("join_words", "join", "concatenate"), ("words",), ("Join the words with spaces.", "Return the words as one text, separated by spaces.", "Put the words together with a space between them.", "Glue all words, a blank in between."), "return \" \".join(words)", ('["a", "bcd", "ef"]',)),
    Function(("first", "first_item", "head"), ("items",), ("Return the first item.", "Return the first element of the list.", "Get the item at the start of the list.", "Hand back what opens the list."), "return items[0]", ("[4, 5, 6]",)),
    Function(("last", "last_item", "tail"), ("items",), ("Return the last item.", "Return the last element of the list.", "Get the item at the end of the list.", "Hand back what closes the list."), "return items[-1]", ("[4, 5, 6]",)),
    Function(("first_{k}", "take_{k}", "take"), ("items",), ("Return the first {k} items.", "Return the first {k} elements of the list.", "Take {k} items from the start of the list.", "Hand back the opening {k} of the list."), "return items[:{k}]", ("[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]",), tuple(range(2, 9))),
    Function(("last_{k}", "take_last_{k}", "take_last"), ("items",), ("Return the last {k} items.", "Return the last {k} elements of the list.", "Take {k} items from the end of the list.", "Hand back the closing {k} of the list."), "return items[-{k}:]", ("[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]",), tuple(range(2, 9))),
    Function(("unique", "distinct", "remove_duplicates"), ("items",), ("Return the sorted distinct items.", "Remove duplicates and sort the list.", "Return the unique items in order.", "Sort what stays once every repetition is gone."), "return sorted(set(items))", ("[3, 1, 3, 2]",)),
    Function(("sort_descending", "descending", "sort_down"), ("items",), ("Sort the items from largest to smallest.", "Return the list in descending order.", "Sort the list in reverse order.", "Line the list up, biggest ahead."), "return sorted(items, reverse=True)", ("[3, 1, 3, 2]",)),
    Function(("index_of_max", "argmax", "position_of_max"), ("values",), ("Return the index of the largest value.", "Find the position of the maximum.", "Return where the largest value is.", "Point at the slot that the biggest value takes."), "return values.index(max(values))", ("[3, 1, 9, 2]",)),
    Function(("flatten", "flatten_list", "merge_lists"), ("lists",), ("Flatten a list of lists.", "Return all items of the lists in one list.", "Merge the lists into one.", "Pour every inner list into a single one."), "return [item for part in lists for item in part]", ("[[1, 2], [3], []]",)),
    Function(("count_items", "frequencies", "histogram"), ("items",), ("Return a dict with the count of each item.", "Count how often each item occurs.", "Return the frequency of each item as a dict.", "Tally every item in a dict."), "counts = {{}}\n    for item in items:\n        counts[item] = counts.get(item, 0) + 1\n    return counts", ("[1, 2, 1]",)),
    Function(("invert", "swap", "invert_dict"), ("mapping",), ("Swap keys and values.", "Return the dict with keys and values swapped.", "Invert the mapping.", "Let each key trade places with its value."), "return {{value: key for key, value in mapping.items()}}", ("{1: 2, 3: 4}",)),
    Function(("sum_values", "total_values", "dict_total"), ("mapping",), ("Return the sum of the dict's values.", "Add up the values of the mapping.", "Sum all values of the dict.", "Total whatever the keys point at."), "return sum(mapping.values())", ("{1: 2, 3: 4}",)),
    Function(("keys_above_{k}", "select_keys", "keys_over"), ("mapping",), ("Return the keys whose value is greater than {k}.", "List the keys with a value above {k}.", "Find the keys with values larger than {k}.", "Gather each key pointing at more than {k}."), "return [key for key, value in mapping.items() if value > {k}]", ("{1: 2, 3: 40}",), K),
    Function(("contains", "has_item", "is_in"), ("items", "item"), ("Return True if the item is in the list.", "Check whether the list contains the item.", "Tell if item is one of the items.", "Say whether one meets item among the items."), "return item in items", ("[1, 2], 2", "[1, 2], 3")),
    Function(("repeat", "repeat_text", "multiply_text"), ("text", "n"), ("Repeat the text n times.", "Return the text n times in a row.", "Return n copies of the text.", "Say the text over and over until n is reached."), "return text * n", ('"ab", 3',)),
    Function(("count_up", "up_to", "numbers_to"), ("n",), ("Return the numbers from 1 to n.", "Return a list of 1 to n.", "List the numbers 1 up to n.", "Gather what one says when counting until n."), "return list(range(1, n + 1))", ("5", "1")),
)


@lru_cache(maxsize=1)
def functions() -> tuple[tuple[Function, ...], tuple[Function, ...]]:
    """The two families."""
    return tuple(list_functions()), OTHERS


def code(rng: Random, split: str) -> Example:
    """A function to complete; `keys` of a held-out one are the test calls, then the true source."""
    function = rng.choice(functions()[rng.random() < 0.5])
    k = rng.choice(function.constants)
    first, held_out, *others = function.docstrings
    docstring = v.ask_noisily(rng, split, rng.choice((first, *others) if split == v.TRAIN else (held_out,)), k=k)
    body = "    " + function.body.format(k=k)
    name = rng.choice(function.names).format(k=k)
    head = function_head(name, list(function.arguments), docstring)
    keys = (*(f"{name}({call})" for call in function.calls), f"{head}\n{body}\n")
    raw = rng.random() < 0.5
    if raw:
        return Example("code", prompt=head, answer=f"\n{body}\n<|endoftext|>", keys=keys, free_text=(docstring,))
    prompt = CODE_FORM.format(head=head)
    if split == v.TRAIN and rng.random() < 0.4:
        prompt = fill(rng, rng.choice((
            "[Complete|Finish|Write] this function:\n{head}",
            "```python\n{head}\n```\n[Complete|Finish] the function.",
            "Write a Python function: {docstring}\nIts head is `def {name}({arguments}):`",
            "[Implement|Fill in] this.\n\n```python\n{head}\n```",
            "{head}", "补全这个函数。\n```python\n{head}\n```")), head=head, docstring=docstring, name=name,
            arguments=", " .join(function.arguments))
    system = fill(rng, f"[||{SYSTEM_CODE}]") if split == v.TRAIN else ""
    return chat("code", prompt, f"```python\n{head}\n{body}\n```", system, keys=keys, free_text=(docstring,))
