"""Heads that matter for texts of all languages."""

from headatlas.detector import Measured, model_detector
from headatlas.detectors._languages import LanguageHeads, general
from headatlas.edits.collect import pieces
from headatlas.model import Model
from headatlas.model.runs.shared_pass import Alongside, alone
from headatlas.task import Batch
from headatlas.tasks.parallel_languages import parallel_languages


@model_detector(head_type="language-general-head", task=parallel_languages, version=1, minimum_effect=0.3)
def language_general(model: Model, batch: Batch) -> Measured:
    """In how many sets of parallel texts a head is important for four languages of five or more: 0 in none, 1 in all.

    Formula: a head is one of a language's where its importance is above the 0.96 quantile of all heads', importance being -dL/dm where that is
    above 0, m = 1 a mask on the head's output and L the loss of the text in that language, by one forward and one backward pass; share
    of the sets in which it is one of four languages' or more (Liu et al. 2025, LAHIS). Chance: how often that would be so if each language's heads
    were drawn among all heads by themselves. Examples: 160 (--n 160), 32 sets of five languages; with fewer it misses heads that are important in
    most texts and not in all. Differs: the authors average |dL/dm| over 1000 articles of a language, times the share of them in which it is below
    0, and take the quantile then; here five texts of the same simple sentences are a set, each asked alone. The paper itself was not
    read, only its code and abstract.
    """
    found: Measured = alone(model, pieces(batch), alongside(model, batch))
    return found


def alongside(model: Model, batch: Batch) -> Alongside:
    """The same from passes that others make."""
    return LanguageHeads(general, len(batch.facts["languages"]))
