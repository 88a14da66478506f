"""The six task families of the embedded corpus: one generator per benchmark of the paper.

A tiny model must learn them in a minute or two, so sentences are regular and names, numbers and items are copied from
the prompt. They must also leave something to guess, or every drafter would be perfect: most answers contain free
choices (adjectives, places, the order of things), facts that only the target knows (a fixed table of
invented countries) and small computations.

Every generator takes a `random.Random` and returns the turns of one conversation, (user, answer) each.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Turns = list[tuple[str, str]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words("Ada Ben Carl Dana Emma Finn Gita Hugo Ines Jack Kate Leo Mia Nora Omar Paul Ruth Sam Tara Vera")
ITEMS = _words("apples books cards coins cups lamps pencils plums shells stamps")
BOXES = _words("bags boxes jars trays")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
PLACES = _words("market library harbor school park museum station garden bakery theater")
ADJECTIVES = _words("quiet bright small heavy gentle busy warm cold simple clever patient brave strange modern")
NOUNS = _words("river bridge teacher farmer engine letter painter doctor window pilot sailor machine lantern baker")
VERBS = _words("repair study visit paint carry watch build protect move clean")
TOPICS = _words("gardening cooking hiking chess painting swimming writing cycling reading running")
EVENTS = _words("fair meeting race concert workshop party")
EXPORTS = _words("copper tea salt silk wheat glass wool rice")
ANIMALS = _words("falcon wolf heron bear otter lynx")
TIMES = ["in the morning", "at noon", "in the afternoon", "in the evening"]

_FACTS_SEED = 7
_COUNTRIES = 24


def _syllables(random: Random, count: int) -> str:
    return "".join(random.choice("bdfgklmnrstv") + random.choice("aeiou") for _ in range(count))


def _countries() -> dict[str, dict[str, str]]:
    random = Random(_FACTS_SEED)
    countries: dict[str, dict[str, str]] = {}
    while len(countries) < _COUNTRIES:
        name = _syllables(random, 2).capitalize() + random.choice(["nia", "land", "ria"])
        countries[name] = {
            "capital": _syllables(random, 2).capitalize() + random.choice(["burg", "ton", "ville"]),
            "river": _syllables(random, 2).capitalize(),
            "export": random.choice(EXPORTS),
            "language": _syllables(random, 1).capitalize() + "lish",
            "animal": random.choice(ANIMALS),
        }
    return countries


COUNTRIES = _countries()
"""Invented countries and their facts: the same in every corpus, so that a target can know them."""

_PHRASES = {
    "capital": ("the capital", "The capital of {country} is {capital}."),
    "river": ("the longest river", "The longest river in {country} is the {river}."),
    "export": ("the main export", "The main export of {country} is {export}."),
    "language": ("the language", "People in {country} speak {language}."),
    "animal": ("the national animal", "The national animal of {country} is the {animal}."),
}


def question_answering(random: Random) -> Turns:
    """Closed-book questions about the invented countries."""
    country = random.choice(list(COUNTRIES))
    facts = COUNTRIES[country] | {"country": country}
    first, second, third = random.sample(list(_PHRASES), 3)
    asked = f"{_PHRASES[first][0]} and {_PHRASES[second][0]} of {country}"
    user = random.choice([f"What are {asked}?", f"Tell me {asked}.", f"Do you know {asked}?", f"I need {asked}."])
    sentences = [_PHRASES[kind][1].format(**facts) for kind in (first, second)]
    extra = random.choice(
        [
            "You may also like to know this: " + _PHRASES[third][1].format(**facts),
            f"Many people visit the {random.choice(ADJECTIVES)} {random.choice(PLACES)} of {facts['capital']}.",
        ]
    )
    return [(user, " ".join([*sentences, extra]))]


def _gained(random: Random) -> tuple[str, list[str], str]:
    name, other = random.sample(NAMES, 2)
    item = random.choice(ITEMS)
    have, more, gone = random.randint(5, 20), random.randint(2, 12), random.randint(2, 6)
    total = have + more
    user = (
        f"{name} has {have} {item}. {other} gives {name} {more} more. Then {name} sells {gone} {item}. "
        f"How many {item} does {name} have?"
    )
    steps = [
        f"{name} starts with {have} {item}.",
        f"With the {more} from {other}, that makes {have} + {more} = {total} {item}.",
        f"After selling {gone}, {name} has {total} - {gone} = {total - gone} {item}.",
    ]
    return user, steps, str(total - gone)


def _packed(random: Random) -> tuple[str, list[str], str]:
    name = random.choice(NAMES)
    item, box, place = random.choice(ITEMS), random.choice(BOXES), random.choice(PLACES)
    boxes, each, more = random.randint(2, 9), random.randint(2, 9), random.randint(2, 12)
    user = (
        f"{name} buys {boxes} {box} with {each} {item} each at the {place}. {name} finds {more} more. "
        f"How many {item} does {name} have?"
    )
    steps = [
        f"{name} buys {boxes} {box} at the {place}.",
        f"The {box} hold {boxes} * {each} = {boxes * each} {item}.",
        f"With the {more} more, {name} has {boxes * each} + {more} = {boxes * each + more} {item}.",
    ]
    return user, steps, str(boxes * each + more)


def arithmetic(random: Random) -> Turns:
    """Word problems with worked steps."""
    user, steps, answer = random.choice([_gained, _packed])(random)
    opening = random.choice(["Let us solve this step by step.", "We work through the steps.", "First we look at it."])
    lines = [opening, *(f"Step {number}: {step}" for number, step in enumerate(steps, start=1))]
    return [(user, "\n".join([*lines, f"The answer is {answer}."]))]


def code(random: Random) -> Turns:
    """Short Python functions from signature and docstring."""
    values, item = random.choice(["values", "numbers", "items", "rows"]), random.choice(["x", "n", "item", "value"])
    result = random.choice(["total", "result", "out", "found"])
    bound = random.randint(2, 12)
    test, words = random.choice(
        [
            (f"{item} > {bound}", f"greater than {bound}"),
            (f"{item} < {bound}", f"less than {bound}"),
            (f"{item} % {bound} == 0", f"divisible by {bound}"),
            (f"{item} != {bound}", f"not equal to {bound}"),
        ]
    )
    verb, start, update, summary = random.choice(
        [
            ("sum", "0", f"{result} += {item}", "adds up"),
            ("count", "0", f"{result} += 1", "counts"),
            ("list", "[]", f"{result}.append({item})", "collects"),
        ]
    )
    name = f"{verb}_{random.choice(PLACES)}"
    signature = f"def {name}({values}):\n"
    user = f'Complete the function.\n{signature}    """Return the {verb} of the {values} {words}."""'
    body = [f"{result} = {start}", f"for {item} in {values}:", f"    if {test}:", f"        {update}"]
    lines = "".join(f"    {line}\n" for line in [*body, f"return {result}"])
    closing = random.choice(
        [
            f"The function {summary} the {values} that are {words}.",
            f"It goes through the {values} and {summary} those {words}.",
        ]
    )
    return [(user, f"{signature}{lines}\n{closing}")]


def _tip(random: Random, topic: str) -> str:
    return random.choice(
        [
            f"Set a {random.choice(ADJECTIVES)} goal for {topic} every {random.choice(DAYS)}.",
            f"Ask a {random.choice(ADJECTIVES)} {random.choice(NOUNS)} about {topic}.",
            f"Practice {topic} near the {random.choice(PLACES)} {random.choice(TIMES)}.",
            f"Take a {random.choice(ADJECTIVES)} break before you go on with {topic}.",
        ]
    )


def _tips(random: Random) -> tuple[str, str]:
    topic, name = random.choice(TOPICS), random.choice(NAMES)
    count = random.choice(["two", "three"])
    lines = [f"{number}. {_tip(random, topic)}" for number in range(1, 3 if count == "two" else 4)]
    user = f"List {count} tips about {topic} for {name}."
    return user, "\n".join([f"Here are {count} tips about {topic} for {name}:", *lines])


def _invitation(random: Random) -> tuple[str, str]:
    name, sender = random.sample(NAMES, 2)
    event, day, place = random.choice(EVENTS), random.choice(DAYS), random.choice(PLACES)
    user = f"Write a short letter from {sender} to {name} about the {event} on {day} at the {place}."
    return user, (
        f"Dear {name},\nI would like to invite you to the {event} on {day}. We meet at the {place} "
        f"{random.choice(TIMES)} and talk about {random.choice(TOPICS)}. Please bring some "
        f"{random.choice(ITEMS)}.\nBest wishes,\n{sender}"
    )


def _story(random: Random) -> tuple[str, str]:
    kind, (first, second) = random.choice(ADJECTIVES), random.sample(NOUNS, 2)
    user = f"Write a story about a {kind} {first} and a {second}."
    return user, (
        f"Once there was a {kind} {first} near the {random.choice(PLACES)}. One {random.choice(DAYS)} the {first} met "
        f"a {second}. They wanted to {random.choice(VERBS)} the {random.choice(NOUNS)} {random.choice(TIMES)}. "
        f"From then on, the {kind} {first} and the {second} were friends."
    )


def instructions(random: Random) -> Turns:
    """Everyday requests: tips, letters, stories."""
    return [random.choice([_tips, _invitation, _story])(random)]


def summarising(random: Random) -> Turns:
    """A news item of four or five sentences, and its summary."""
    name, other = random.sample(NAMES, 2)
    event, place, day = random.choice(EVENTS), random.choice(PLACES), random.choice(DAYS)
    item, noun, verb = random.choice(ITEMS), random.choice(NOUNS), random.choice(VERBS)
    people = random.randint(2, 9) * 10
    details = [
        (f"About {people} people came {random.choice(TIMES)}.", f"About {people} people came."),
        (
            f"{other}, a {random.choice(ADJECTIVES)} {random.choice(NOUNS)}, helped to {verb} the {noun}.",
            f"{other} helped to {verb} the {noun}.",
        ),
        (f"They sold {random.choice(ADJECTIVES)} {item} for the {noun}.", f"The {item} were sold for the {noun}."),
        (f"The weather was {random.choice(ADJECTIVES)} and {random.choice(ADJECTIVES)}.", ""),
    ]
    chosen = random.sample(details, random.randint(2, 3))
    text = " ".join([f"On {day}, {name} opened a {event} at the {place}.", *(long for long, _ in chosen)])
    opening = random.choice(["In short, ", "Here is a summary: ", "The text says that "])
    short = [f"{opening}{name} opened a {event} at the {place} on {day}.", *(brief for _, brief in chosen if brief)]
    return [(f"Summarize: {text}", " ".join(short))]


def _trip(random: Random) -> Turns:
    name, day, topic = random.choice(NAMES), random.choice(DAYS), random.choice(TOPICS)
    first, second, third = random.sample(PLACES, 3)
    answer = (
        f"In the morning, {name} can visit the {first}. At noon, {name} can have lunch near the {second}. In the "
        f"evening, {name} can go to the {random.choice(ADJECTIVES)} {third} and enjoy some {topic}."
    )
    friend, new_day = random.choice(NAMES), random.choice(DAYS)
    again = (
        f"Of course. On {new_day}, {name} and {friend} can visit the {first}. Then they can have lunch near the "
        f"{second}. After that, they can go to the {third} and meet a {random.choice(ADJECTIVES)} "
        f"{random.choice(NOUNS)}."
    )
    return [
        (f"Plan a day with {topic} for {name} on {day}.", answer),
        (f"Now plan it for {new_day}, and let {friend} come too.", again),
    ]


def _advice(random: Random) -> Turns:
    name, topic = random.choice(NAMES), random.choice(TOPICS)
    first, second = _tip(random, topic), _tip(random, topic)
    other, new_topic = random.choice(NAMES), random.choice(TOPICS)
    return [
        (
            f"My friend {name} lives near the {random.choice(PLACES)} and wants to learn {topic}. "
            f"What should {name} do?",
            f"{name} should begin with something {random.choice(ADJECTIVES)}. {first} {second} Good luck to {name}!",
        ),
        (
            f"What about {new_topic} for {other}?",
            f"{other} should begin with something {random.choice(ADJECTIVES)} too. {_tip(random, new_topic)} "
            f"Then {other} and {name} can talk about {new_topic} and {topic}.",
        ),
    ]


def chat(random: Random) -> Turns:
    """Two turns; the second builds on the first answer."""
    return random.choice([_trip, _advice])(random)


FAMILIES: dict[str, Callable[[Random], Turns]] = {
    "mt_bench": chat,
    "humaneval": code,
    "gsm8k": arithmetic,
    "alpaca": instructions,
    "sum": summarising,
    "qa": question_answering,
}
"""Benchmark name -> generator."""
