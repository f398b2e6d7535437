"""Heads that matter for texts of one language and not of the others."""

from headatlas.detector import Measured, model_detector
from headatlas.detectors._languages import LanguageHeads, specific
from headatlas.edits.collect import pieces
from headatlas.model import Model
from headatlas.model.runs.shared_pass import Alongside, alone
from headatlas.task import Batch
from headatlas.tasks.parallel_languages import parallel_languages


@model_detector(head_type="language-specific-head", task=parallel_languages, version=1, minimum_effect=0.3)
def language_specific(model: Model, batch: Batch) -> Measured:
    """In how many sets of parallel texts a head is important for its own language and for few others: 0 in none, 1 in all.

    Formula: a head is one of a language's where its importance is above the 0.96 quantile of all heads', importance being -dL/dm where that is
    above 0, m = 1 a mask on the head's output and L the loss of the text in that language, by one forward and one backward pass; share
    of the sets in which it is one of its language's and of fewer than four languages' (Liu et al. 2025, LAHIS). Chance: the same for a
    language drawn at random, which is what shuffled labels give. A head's language is the one that it is important for most often in the other
    half of the sets. Examples: 160 (--n 160), 32 sets of five languages; with fewer it misses heads that are important in most texts and not in all.
    Differs: the authors average |dL/dm| over 1000 articles of a language, times the share of them in which it is below 0, and take the
    quantile then; here five texts of the same simple sentences are a set, each asked alone, so that content does not differ between languages. The paper itself was not
    read, only its code and abstract.
    """
    found: Measured = alone(model, pieces(batch), alongside(model, batch))
    return found


def alongside(model: Model, batch: Batch) -> Alongside:
    """The same from passes that others make."""
    return LanguageHeads(specific, len(batch.facts["languages"]))
