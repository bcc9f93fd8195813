"""Word lists and sentence templates of the synthetic corpus."""

from __future__ import annotations

from superb_eval.corpora.synthetic.grammar import Grammar

# fmt: off
PEOPLE = (
    "anna", "peter", "maria", "tom", "lucy", "victor", "emma", "george", "nadia", "oscar", "judy", "felix", "hugo",
    "clara", "simon", "ruth", "leo", "alice", "martin", "zoe",
)
THINGS = (
    "book", "garden", "window", "bottle", "river", "cheese", "jacket", "letter", "mirror", "guitar", "basket", "chair",
    "orange", "hammer", "candle", "picture", "shoe", "village", "ladder", "boat", "sugar", "umbrella", "watch", "fish",
    "thimble", "treasure", "yoghurt", "engine", "pillow", "cloud", "joke", "voice", "thing", "bath", "nurse", "beard",
    "path", "chain", "measure", "judge", "wolf", "machine", "zebra", "earth", "onion", "ship", "tooth", "ring",
)
QUALITIES = (
    "small", "heavy", "quiet", "yellow", "old", "clever", "broken", "warm", "strange", "purple", "hungry", "fresh",
    "narrow", "famous", "thick", "loud", "gentle", "young", "usual", "shiny", "dirty", "cheap", "early", "smooth",
)
MANY = (
    "apples", "boxes", "children", "horses", "islands", "keys", "lamps", "matches", "numbers", "oaks", "people",
    "questions", "roses", "spoons", "tickets", "towns", "uniforms", "voices", "wishes", "youths", "bridges", "clothes",
)
DEEDS = (
    "found", "carried", "painted", "watched", "washed", "bought", "forgot", "noticed", "changed", "pushed", "chose",
    "followed", "threw", "enjoyed", "measured", "borrowed", "hid", "brought", "lifted", "sold",
)
PLACES = (
    "kitchen", "market", "station", "forest", "harbour", "office", "mountain", "church", "garage", "theatre", "museum",
    "bridge", "castle", "school", "valley", "airport", "bedroom", "cellar",
)
WAYS = ("slowly", "often", "quickly", "yesterday", "again", "together", "at noon", "very well", "by chance", "twice")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SHORT = (
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed", "bird", "cat", "dog", "happy",
    "house", "marvin", "one", "sheila", "tree", "wow", "zero",
)
# fmt: on

EVERYDAY = Grammar(
    templates=(
        "the {quality} {thing} {deed} the {quality} {thing}",
        "{person} {deed} a {quality} {thing} in the {place}",
        "{person} and {person} {deed} {number} {many} {way}",
        "where is the {quality} {thing} that {person} {deed} on {weekday}",
        "they {deed} the {thing} {way} near the {place}",
        "there was a {quality} {thing} between the {place} and the {place}",
        "please bring {number} {quality} {many} to the {place} on {weekday}",
        "why would {person} go to the {place} without a {thing}",
        "{short} {short} said {person} and {deed} it {way}",
        "turn the {thing} {short} in the {place} at {number} oclock",
        "{short} {short} {short} {short}",
        "i think we should have {deed} your {thing} {way}",
    ),
    lists={
        "person": PEOPLE,
        "thing": THINGS,
        "many": MANY,
        "quality": QUALITIES,
        "deed": DEEDS,
        "place": PLACES,
        "way": WAYS,
        "number": NUMBERS,
        "weekday": WEEKDAYS,
        "short": SHORT,
    },
)

# fmt: off
READ = Grammar(
    templates=("{person} {deed} {many}", "{number} {quality} {many}", "{many} in the {place}"),
    lists={
        "person": ("anna", "peter", "maria", "victor", "lucy", "george"),
        "deed": ("found", "bought", "painted", "carried", "watched", "noticed"),
        "number": ("two", "three", "five", "seven", "nine"),
        "quality": ("small", "heavy", "yellow", "purple", "broken", "shiny"),
        "many": ("apples", "boxes", "horses", "islands", "matches", "spoons"),
        "place": ("kitchen", "market", "forest", "garage"),
    },
)
"""Sentences over a vocabulary of 35 words: small enough for a recogniser that trains on minutes of speech."""

REQUESTS = Grammar(
    templates=tuple(
        f"{opening}{end}"
        for opening in (
            "call {contact}", "play {music}", "cook {food}", "paint it {colour}", "clean the {room}",
            "feed the {animal}",
        )
        for end in ("", "", "", " on {weekday}", " at {hour}", " near {city}")
    ),
    lists={
        "contact": ("anna", "peter", "maria"),
        "music": ("jazz", "opera", "folk songs"),
        "food": ("rice", "noodles", "onion soup"),
        "colour": ("red", "yellow", "purple"),
        "room": ("kitchen", "garage", "cellar"),
        "animal": ("horses", "chickens", "cat"),
        "weekday": ("monday", "tuesday", "friday"),
        "hour": ("seven", "nine", "noon"),
        "city": ("london", "oslo", "new york"),
    },
)
"""Requests whose drawn values are slots: one or two of nine, so that a constant prediction scores low."""

ACTIONS = {
    "start": ("switch on the {object}", "start the {object}"),
    "stop": ("switch off the {object}", "stop the {object}"),
    "raise": ("turn up the {object}", "more {object} please"),
    "lower": ("turn down the {object}", "less {object} please"),
}
OBJECTS = ("music", "heating", "lights", "fan")
LOCATIONS = {"none": "", "kitchen": " in the kitchen", "bedroom": " in the bedroom", "garage": " in the garage"}
# fmt: on
