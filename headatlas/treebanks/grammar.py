"""English sentences with gold dependencies, constituents and coreference, made by a grammar: syntax that needs no download.

A phrase is built with its label and its parts, one of which is its head; the others say by which relation (Universal
Dependencies 2) they depend on it. Both kinds of gold syntax are read off the same phrase, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from headatlas.errors import BadInput
from headatlas.treebanks import _lexicon as words
from headatlas.treebanks.sentences import ROOT, Sentence

HEAD = "head"
SOLID = ("'s", ",", ".", "?", ";")  # written without a space before


@dataclass(frozen=True)
class Phrase:
    """parts: (relation to the phrase's head, word or phrase) in order; the head's own relation is HEAD.

    chain: the entity a noun phrase speaks of, None where it is not followed.
    """

    label: str
    parts: tuple[tuple[str, str | Phrase], ...]
    chain: int | None = None


def _p(label: str, *parts: tuple[str, str | Phrase] | None, chain: int | None = None) -> Phrase:
    return Phrase(label, tuple(part for part in parts if part is not None), chain)


@dataclass(frozen=True)
class _Subject:
    """A noun phrase and what agrees with it."""

    phrase: Phrase
    plural: bool = False


class Grammar:
    """Draws phrases; everything comes from one random generator, so a seed gives the same sentences on any machine."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    # ---- draws ------------------------------------------------------------------------------------------------------
    def pick(self, among: Sequence[Any]) -> Any:
        """One of them."""
        return among[int(self.rng.integers(len(among)))]

    def maybe(self, share: float) -> bool:
        """True in so many of the draws."""
        return bool(self.rng.random() < share)

    # ---- noun phrases -----------------------------------------------------------------------------------------------
    def noun(self, *, person: bool, plural: bool | None = None, depth: int = 0, bare: bool = False) -> _Subject:
        """A noun with its determiner, and now and then an adjective, a number, a compound, a possessor or what follows it."""
        plural = self.maybe(0.4) if plural is None else plural
        forms = self.pick(words.PEOPLE if person else words.THINGS)
        number = plural and self.maybe(0.2)
        owner = not number and self.maybe(0.2) and depth < 2
        front: list[tuple[str, str | Phrase]] = []
        if owner:
            whose = self.noun(person=True, plural=False, depth=2, bare=True).phrase
            front.append(("nmod:poss", _p("NP", *whose.parts, ("case", "'s"))))
        elif number:
            front.append(("nummod", self.pick(words.NUMBERS)))
        else:
            front.append(("det", self.pick(("the", "these", "some") if plural else ("the", "this", "every"))))
        if self.maybe(0.35):
            front.append(("amod", self.pick(words.ADJECTIVES)))
        if not person and self.maybe(0.2):
            front.append(("compound", self.pick(words.MATERIALS)))
        core = (*front, (HEAD, forms[int(plural)]))
        if bare or depth > 1 or not self.maybe(0.45):
            return _Subject(_p("NP", *core), plural)
        after: tuple[str, Phrase] = self.pick(
            [self.with_preposition, self.with_preposition, self.object_relative, self.subject_relative]
        )(depth, plural, person)
        return _Subject(_p("NP", (HEAD, _p("NP", *core)), after), plural)

    def with_preposition(self, depth: int, plural: bool, person: bool) -> tuple[str, Phrase]:
        """ "near the lamps": of the other number as often as not, so that the nearest noun is a bad guess for the subject."""
        inside = self.noun(person=self.maybe(0.5), plural=not plural if self.maybe(0.6) else plural, depth=depth + 1)
        return "nmod", _p("PP", ("case", self.pick(words.PREPOSITIONS)), (HEAD, inside.phrase))

    def object_relative(self, depth: int, plural: bool, person: bool) -> tuple[str, Phrase]:
        """ "that the farmer sees": the noun is what is seen."""
        who = self.noun(person=True, depth=depth + 1, bare=True)
        verb = self.pick(words.TRANSITIVE)
        clause = _p("S", ("nsubj", who.phrase), (HEAD, _p("VP", (HEAD, self.finite(verb, who.plural)))))
        return "acl:relcl", _p("SBAR", ("obj", _p("WHNP", (HEAD, "that"))), (HEAD, clause))

    def subject_relative(self, depth: int, plural: bool, person: bool) -> tuple[str, Phrase]:
        """ "that sees the farmer": the noun is who sees."""
        verb, what = self.pick(words.TRANSITIVE), self.noun(person=self.maybe(0.5), depth=depth + 1, bare=True)
        action = _p("VP", (HEAD, self.finite(verb, plural)), ("obj", what.phrase))
        pronoun = "who" if person and self.maybe(0.5) else "that"
        return "acl:relcl", _p("SBAR", ("nsubj", _p("WHNP", (HEAD, pronoun))), (HEAD, _p("S", (HEAD, action))))

    # ---- verbs ------------------------------------------------------------------------------------------------------
    def finite(self, forms: tuple[str, ...], plural: bool) -> str:
        """Present or past."""
        return forms[2] if self.maybe(0.5) else forms[1 if plural else 0]

    def predicate(self, plural: bool, depth: int = 0) -> Phrase:
        """A verb phrase of any kind."""
        kinds: list[Callable[[bool], Phrase]] = [
            self.transitive, self.transitive, self.intransitive, self.ditransitive, self.with_particle, self.copula,
            self.passive, self.modal,
        ]  # fmt: skip
        if depth == 0:
            kinds += [self.saying, self.wanting]
        chosen: Callable[[bool], Phrase] = self.pick(kinds)
        return chosen(plural)

    def adverb(self) -> tuple[str, Phrase] | None:
        """One before the verb, now and then."""
        return ("advmod", _p("ADVP", (HEAD, self.pick(words.ADVERBS)))) if self.maybe(0.25) else None

    def place(self) -> tuple[str, Phrase] | None:
        """Where it happens, now and then."""
        if not self.maybe(0.3):
            return None
        where = self.noun(person=False, depth=1, bare=True)
        return "obl", _p("PP", ("case", self.pick(("in", "at", *words.PREPOSITIONS))), (HEAD, where.phrase))

    def transitive(self, plural: bool) -> Phrase:
        """ "often sees the lamp"."""
        what = self.noun(person=self.maybe(0.3))
        return _p("VP", self.adverb(), (HEAD, self.finite(self.pick(words.TRANSITIVE), plural)), ("obj", what.phrase))

    def intransitive(self, plural: bool) -> Phrase:
        """ "waits near the house"."""
        return _p("VP", self.adverb(), (HEAD, self.finite(self.pick(words.INTRANSITIVE), plural)), self.place())

    def ditransitive(self, plural: bool) -> Phrase:
        """ "gives the child a book"."""
        verb, whom = self.finite(self.pick(words.GIVING), plural), self.noun(person=True, depth=1, bare=True)
        return _p("VP", (HEAD, verb), ("iobj", whom.phrase), ("obj", self.noun(person=False, depth=1).phrase))

    def with_particle(self, plural: bool) -> Phrase:
        """ "picks up the key", and "picks the key up"."""
        *forms, particle = self.pick(words.PARTICLE)
        verb, what = self.finite(tuple(forms), plural), self.noun(person=False, depth=1, bare=True)
        after = ("compound:prt", _p("PRT", (HEAD, particle)))
        rest = (after, ("obj", what.phrase)) if self.maybe(0.5) else (("obj", what.phrase), after)
        return _p("VP", (HEAD, verb), *rest)

    def copula(self, plural: bool) -> Phrase:
        """ "was happy"."""
        be = ("were" if plural else "was") if self.maybe(0.5) else ("are" if plural else "is")
        return _p("VP", ("cop", be), self.adverb(), (HEAD, _p("ADJP", (HEAD, self.pick(words.PREDICATES)))))

    def passive(self, plural: bool) -> Phrase:
        """ "was seen by the farmer"; `clause` calls its subject nsubj:pass."""
        be = ("were" if plural else "was") if self.maybe(0.6) else ("are" if plural else "is")
        by = self.noun(person=True, depth=1, bare=True)
        agent = ("obl:agent", _p("PP", ("case", "by"), (HEAD, by.phrase))) if self.maybe(0.7) else None
        inner = _p("VP", (HEAD, self.pick(words.TRANSITIVE)[3]), agent)
        return _p("VP", ("aux:pass", be), self.adverb(), (HEAD, inner))

    def modal(self, plural: bool) -> Phrase:
        """ "must see the lamp"."""
        inner = _p("VP", (HEAD, self.pick(words.TRANSITIVE)[1]), ("obj", self.noun(person=False, depth=1).phrase))
        return _p("VP", ("aux", self.pick(words.MODALS)), self.adverb(), (HEAD, inner))

    def wanting(self, plural: bool) -> Phrase:
        """ "wants to see the lamp"."""
        what = self.noun(person=False, depth=1, bare=True)
        inner = _p("VP", (HEAD, self.pick(words.TRANSITIVE)[1]), ("obj", what.phrase))
        clause = _p("S", (HEAD, _p("VP", ("mark", "to"), (HEAD, inner))))
        return _p("VP", (HEAD, self.finite(self.pick(words.WANTING), plural)), ("xcomp", clause))

    def saying(self, plural: bool) -> Phrase:
        """ "says that the farmer waits"."""
        clause = _p("SBAR", ("mark", "that"), (HEAD, self.clause(1)))
        return _p("VP", (HEAD, self.finite(self.pick(words.SAYING), plural)), ("ccomp", clause))

    # ---- sentences --------------------------------------------------------------------------------------------------
    def clause(self, depth: int = 0) -> Phrase:
        """Subject and verb phrase."""
        who = self.noun(person=self.maybe(0.8), depth=depth)
        return _clause(who.phrase, self.predicate(who.plural, depth))

    def coreferent(self) -> Phrase:
        """ "Anna told Peter that she ...": two people and a pronoun of one of them, followed by name."""
        woman, man = self.pick(words.WOMEN), self.pick(words.MEN)
        order = [0, 1] if self.maybe(0.5) else [1, 0]
        first, second = (_p("NP", (HEAD, (woman, man)[one]), chain=one) for one in order)
        one = int(self.maybe(0.5))
        verb = self.pick(words.TRANSITIVE)[2]
        pronoun = _p("NP", (HEAD, ("she", "he")[one]), chain=one)
        after = _p("SBAR", ("mark", self.pick(words.MARKS)), (HEAD, _clause(pronoun, self.past())))
        return _clause(first, _p("VP", (HEAD, verb), ("obj", second), ("advcl", after)))

    def past(self) -> Phrase:
        """A short verb phrase in the past."""
        if self.maybe(0.4):
            return _p("VP", ("cop", "was"), (HEAD, _p("ADJP", (HEAD, self.pick(words.PREDICATES)))))
        what = self.noun(person=False, depth=1, bare=True)
        return _p("VP", (HEAD, self.pick(words.TRANSITIVE)[2]), ("obj", what.phrase))

    def sentence(self) -> Phrase:
        """A clause, two joined by "and", one with an adverbial clause in front, or one with coreference."""
        kind = self.rng.random()
        if kind < 0.2:
            body = self.coreferent()
        elif kind < 0.3:
            joined = ("conj", _p("S", ("cc", "and"), *self.clause(1).parts))
            body = _p("S", (HEAD, self.clause(1)), joined)
        elif kind < 0.4:
            first = _p("SBAR", ("mark", self.pick(words.MARKS)), (HEAD, self.clause(1)))
            body = _p("S", ("advcl", first), ("punct", ","), *self.clause(1).parts)
        else:
            body = self.clause()
        return with_stop(body)


def with_stop(clause: Phrase) -> Phrase:
    """A clause as a sentence."""
    return _p("S", *clause.parts, ("punct", "."))


def _clause(subject: Phrase, predicate: Phrase) -> Phrase:
    relation = "nsubj:pass" if any(name == "aux:pass" for name, _ in predicate.parts) else "nsubj"
    return _p("S", (relation, subject), (HEAD, predicate))


def spelled(phrase: Phrase, name: str = "") -> Sentence:
    """The sentence that a phrase is, with heads, relations, spans and mentions."""
    forms: list[str] = []
    heads: list[int] = []
    relations: list[str] = []
    spans: set[tuple[int, int, str]] = set()
    mentions: list[tuple[int, int]] = []

    def walk(part: str | Phrase) -> int:
        """Write the words of `part`; its head's place."""
        if isinstance(part, str):
            forms.append(part)
            heads.append(ROOT)
            relations.append("root")
            return len(forms) - 1
        first = len(forms)
        placed = [(relation, walk(inner)) for relation, inner in part.parts]
        own = next(place for relation, place in placed if relation == HEAD)
        for relation, place in placed:
            if relation != HEAD:
                heads[place], relations[place] = own, relation
        spans.add((first, len(forms) - 1, part.label))
        if part.chain is not None:
            mentions.append((own, part.chain))
        return own

    walk(phrase)
    forms[0] = forms[0][0].upper() + forms[0][1:]
    spaces = [i + 1 < len(forms) and forms[i + 1] not in SOLID for i in range(len(forms))]
    return Sentence(
        tuple(forms), tuple(spaces), tuple(heads), tuple(relations), frozenset(spans), tuple(sorted(mentions)), name
    )


@lru_cache(maxsize=8)
def _made(n: int, seed: int) -> tuple[Sentence, ...]:
    grammar = Grammar(np.random.default_rng(seed))
    found: dict[str, Sentence] = {}
    while len(found) < n:  # the grammar has far more than anybody asks for, so a new one always comes
        sentence = spelled(grammar.sentence(), f"generated {len(found) + 1}")
        if len(sentence.words) <= 30:
            found.setdefault(sentence.text, sentence)
    return tuple(found.values())


def generated_sentences(n: int, seed: int = 0) -> list[Sentence]:
    """`n` different sentences with dependencies, constituents and coreference; the same seed gives the same. Raises BadInput."""
    if n < 1:
        raise BadInput(f"There is nothing to make of {n} sentences.", "Give 1 or more.")
    return list(_made(n, seed))
