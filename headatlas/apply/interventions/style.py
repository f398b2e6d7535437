"""Style: heads that tell styled from plain answers of the same meaning are pushed to the style. Ma et al. 2025 (DRESS)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.recipe.choosing import answered, last_told
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.pushing import Pushing, push
from headatlas.apply.recipe.recipe import Recipe
from headatlas.apply.steering.direction import Steering
from headatlas.edits.move import Key
from headatlas.heads import HeadId
from headatlas.methods.probing import outputs
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, Vocabulary
from headatlas.task.answers import demand_measurable, truth_margin
from headatlas.tasks._prompts import halved, shuffled

# Question, plain answer, the same in the English of old plays. Every question of a half is another one.
FORMS = (
    ("Where is the {thing}?", "It is in the {place}, where you have left it.", "'Tis in the {place}, where thou hast left it."),
    ("Do you know this {place}?", "Yes, you have shown it to me with your {thing}.", "Aye, thou hast shown it me with thy {thing}."),
    ("May I take the {thing}?", "You may take it before you go to the {place}.", "Thou mayst take it ere thou goest to the {place}."),
    ("Who has my {thing}?", "I do not know; he who comes from the {place} has it.", "I know not; he that cometh from the {place} hath it."),
    ("Shall we go to the {place}?", "Perhaps; your {thing} does not please me.", "Perchance; thy {thing} doth not please me."),
    ("What do you want in the {place}?", "I ask you to give me your {thing}.", "I prithee give me thy {thing}."),
    ("Is the {place} far away?", "No, you will be there before evening.", "Nay, thou shalt be there ere evening."),
    ("Why are you sad?", "Because she has broken your {thing}.", "For that she hath broken thy {thing}."),
    ("What does the {thing} cost?", "It costs more than you have.", "It costeth more than thou hast."),
    ("Can you see the {place}?", "I see it, but you do not.", "I see it, yet thou dost not."),
    ("Who lives in the {place}?", "A man lives there who has no {thing}.", "There dwelleth a man that hath no {thing}."),
    ("Did you hear that?", "It came from the {place}, I think.", "Methinks it hath come from the {place}."),
    ("How old is the {thing}?", "It is older than you are.", "'Tis older than thou art."),
    ("Will it rain in the {place}?", "It often rains there.", "There it oft doth rain."),
    ("Did he tell the truth?", "He lies to you about the {thing}.", "He doth lie to thee about the {thing}."),
    ("What did she say?", "She says that you must leave the {place}.", "She saith that thou must quit the {place}."),
    ("Are you hungry?", "Yes, bring me what you have in the {place}.", "Aye, bring me what thou hast in the {place}."),
    ("Why did you sell the {thing}?", "It was not useful to me.", "It hath availed me naught."),
    ("When will he come back?", "He will come when he has the {thing}.", "He cometh when he hath the {thing}."),
    ("Is this your {thing}?", "No, it is yours.", "Nay, 'tis thine, and none but thine."),
    ("What do you fear?", "I fear that you will lose the {thing}.", "I fear me thou wilt lose the {thing}."),
    ("Who made the {thing}?", "My father made it with his own hands.", "My father hath wrought it with his own hands."),
    ("Where were you born?", "I was born near the {place}, as you were.", "I was born nigh the {place}, as thou wert."),
    ("Is the {place} open?", "No, and your {thing} will not open it.", "Nay, nor shall thy {thing} open it."),
    ("Do you like the {place}?", "It pleases me more than your house does.", "It pleaseth me more than thy house doth."),
    ("Why is the {place} empty?", "Everyone has gone away.", "All folk hath gone hence."),
    ("Should I keep the {thing}?", "Keep it, or you will be sorry.", "Keep it, else thou wilt rue it."),
    ("Who is your friend?", "The one who carries the {thing} is my friend.", "He that hath the {thing} is my friend."),
    ("What is in the {place}?", "There is nothing in it but a {thing}.", "There is naught therein, save thy {thing}."),
    ("Can you help me?", "I will help you if you give me the {thing}.", "I'll aid thee, so thou give me the {thing}."),
    ("Was the {thing} lost?", "Yes, someone has stolen it.", "Aye, some knave hath stolen it."),
    ("Have you been in the {place}?", "I have never been there.", "Never yet hath my foot trod there."),
    ("What are you looking for?", "I look for the {thing} that you hid.", "I seek the {thing} which thou didst hide."),
    ("Is the king in the {place}?", "He has left it, as you see.", "He hath left it, as thou seest."),
    ("How did you find the {thing}?", "You told me where it was.", "Thou didst tell me where it lay."),
    ("What shall I do with the {thing}?", "Do what you want with it.", "Do with it what thou wilt."),
    ("Are you going to the {place}?", "Yes, and you must come with me.", "Aye, and thou must come with me."),
    ("Who broke the {thing}?", "You did it yourself.", "Thou didst it thyself."),
    ("Is there a way to the {place}?", "Turn around, and you will find it.", "Turn thee about, and thou shalt find it."),
    ("Do you believe him?", "I believe what he says about the {thing}.", "I trust what he saith, as thou dost."),
    ("Why do you wait in the {place}?", "I wait until you speak to me.", "I tarry till thou speak to me."),
    ("Is the {thing} good?", "It is better than it looks.", "'Tis better than it doth appear."),
    ("What happened in the {place}?", "Nobody knows what happened.", "None knoweth what hath befallen."),
    ("May I come in?", "Come in, if you leave your {thing} outside.", "Enter, so thou leave thy {thing} without."),
    ("Where do you come from?", "I come from the {place}, and where do you come from?", "From the {place}; and whence comest thou?"),
    ("Does she love the {place}?", "She loves it more than anything.", "She doth love it above all things."),
    ("What is your name?", "You know it well enough.", "Thou knowest it well enough."),
    ("Can the {thing} be repaired?", "I do not think that it can.", "Methinks nothing hath power to mend it."),
)  # fmt: skip
THINGS = ("sword", "letter", "horse", "ring", "book", "lamp", "coat", "crown", "key", "cup", "knife", "map")
PLACES = (
    "garden",
    "castle",
    "forest",
    "church",
    "market",
    "tower",
    "kitchen",
    "harbor",
    "valley",
    "village",
    "stable",
    "library",
)


@intervention(
    metrics=("truth-margin", "mc1"),
    takes=("heads", "pick", "alpha"),
    control="directions",
    papers=("dress-style-subspace-editing",),
)
def style(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Push the heads that tell styled from plain answers of the same meaning to the style.

    z + alpha * (mean of styled - mean of plain answers), within the subspace of the differences of pairs, at the last token of the prompt and
    at each generated one. Heads: those with the most accurate linear probes for style at the answer's last token (`pick`; 1 in
    20). alpha: tried on questions held back, by the margin: mean log-probability of the styled answer's tokens, less that of the plain one's.
    MC1: share of questions to which the styled answer is the likelier one. Its own prompts: questions with answers in plain English and in that of old plays (label
    right: styled), 24 in each half; the halves share neither questions nor words, so that probes are asked about questions that they have not seen. Differs: the paper's strength along each axis changes with what the model is at, here it is constant.
    """
    demand_measurable(truth_margin, batch)
    how = Pushing("right", truth_margin, alphas=(2.0, 5.0, 10.0, 20.0), sized=_within_pairs)
    return push("style", model, batch, options, progress, how)


def _within_pairs(model: Model, steering: Steering, batch: Batch, seed: int) -> Steering:
    """The difference of means itself, within the half of the axes along which the pairs of answers differ most."""
    heads = sorted(key for key in steering.directions if isinstance(key, HeadId))
    right, group = batch.labels["right"] == 1, batch.labels["group"]
    sides = [((group == one) & right, (group == one) & ~right) for one in group.unique()]
    sides = [both for both in sides if bool(both[0].any()) and bool(both[1].any())]
    moved = dict[Key, Tensor]()
    at = torch.arange(batch.tokens.shape[1]) == last_told(batch)  # [example, token]
    for head, z in outputs(model, batch, heads, at.float()):
        pairs = torch.stack([z[styled].mean(0) - z[plain].mean(0) for styled, plain in sides])
        axes = torch.linalg.svd(pairs, full_matrices=False).Vh[: max(1, pairs.shape[1] // 2)]
        moved[head] = axes.T @ (axes @ pairs.mean(0))
    sizes = {head: float(one.norm()) for head, one in moved.items()}
    return replace(steering, directions={head: one / sizes[head] for head, one in moved.items()}, spread=sizes)


def prompts(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str) -> Batch:
    """`n` questions (24 at most), each with a styled and a plain answer."""
    return answered(tokenizer, _items(n, rng, half))


def _items(n: int, rng: np.random.Generator, half: str) -> Iterator[tuple[str, str, bool, int]]:
    things, places = halved(THINGS, half), halved(PLACES, half)
    for number, form in enumerate(shuffled(halved(FORMS, half), rng)[:n]):
        thing, place = str(rng.choice(things)), str(rng.choice(places))
        question, plain, styled = (text.format(thing=thing, place=place) for text in form)
        prompt = f"Question: {question}\nAnswer:"
        yield from ((prompt, answer, answer == styled, number) for answer in (styled, plain))
