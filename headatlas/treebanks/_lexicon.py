"""Words of the grammar: frequent ones, so that most tokenizers give each a token of its own."""


def _forms(text: str) -> list[tuple[str, ...]]:
    return [tuple(one.split("/")) for one in text.split()]


# singular plural
PEOPLE = _forms(
    "teacher/teachers doctor/doctors farmer/farmers student/students lawyer/lawyers driver/drivers artist/artists "
    "soldier/soldiers child/children woman/women man/men friend/friends neighbor/neighbors singer/singers king/kings "
    "guest/guests writer/writers judge/judges nurse/nurses baker/bakers"
)
THINGS = _forms(
    "book/books letter/letters picture/pictures house/houses car/cars table/tables road/roads river/rivers tree/trees "
    "song/songs story/stories door/doors window/windows box/boxes coat/coats bridge/bridges garden/gardens key/keys "
    "ship/ships lamp/lamps"
)
MATERIALS = ("stone", "paper", "glass", "gold", "winter", "city", "school", "family")  # first part of a compound
WOMEN = ("Anna", "Mary", "Laura", "Emma", "Sarah", "Julia", "Alice", "Helen")
MEN = ("John", "Peter", "David", "Paul", "Robert", "Daniel", "George", "Henry")
# present third person, present, past, participle
TRANSITIVE = _forms(
    "sees/see/saw/seen finds/find/found/found knows/know/knew/known takes/take/took/taken paints/paint/painted/painted "
    "watches/watch/watched/watched visits/visit/visited/visited follows/follow/followed/followed "
    "remembers/remember/remembered/remembered describes/describe/described/described loves/love/loved/loved "
    "sells/sell/sold/sold holds/hold/held/held brings/bring/brought/brought"
)
INTRANSITIVE = _forms(
    "sleeps/sleep/slept/slept waits/wait/waited/waited laughs/laugh/laughed/laughed sings/sing/sang/sung "
    "arrives/arrive/arrived/arrived works/work/worked/worked speaks/speak/spoke/spoken"
)
GIVING = _forms("gives/give/gave/given shows/show/showed/shown sends/send/sent/sent")
SAYING = _forms(
    "says/say/said/said thinks/think/thought/thought believes/believe/believed/believed hopes/hope/hoped/hoped"
)
WANTING = _forms("wants/want/wanted/wanted tries/try/tried/tried promises/promise/promised/promised")
PARTICLE = [(*forms.split("/"), particle) for forms, particle in (
    ("picks/pick/picked/picked", "up"), ("gives/give/gave/given", "away"), ("takes/take/took/taken", "out"),
    ("puts/put/put/put", "down"), ("brings/bring/brought/brought", "back"),
)]  # fmt: skip
ADJECTIVES = (
    "old",
    "young",
    "small",
    "large",
    "red",
    "green",
    "quiet",
    "strange",
    "famous",
    "poor",
    "rich",
    "new",
    "dark",
)
PREDICATES = ("happy", "tired", "late", "ready", "afraid", "alone", "right", "wrong", "free")
ADVERBS = ("often", "never", "always", "quickly", "slowly", "still", "again", "soon")
PREPOSITIONS = ("near", "behind", "with", "from", "under", "beside")
NUMBERS = ("two", "three", "four", "five", "six")
MODALS = ("can", "will", "must", "should", "may")
MARKS = ("because", "while", "when", "although", "if")
