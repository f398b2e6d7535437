"""Pruning on texts of one's own: encoder-decoders are measured by their own loss, beside what the plain model gives."""

import contextlib

import pytest
import torch
import transformers as T

import headatlas as ha
from headatlas.apply.pruning.halves import halves_of
from headatlas.errors import BadInput
from headatlas.methods.measured_by.own_output import MOST
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import attach
from headatlas.task import Batch
from tests.methods.measured_by.two_stacks import opened, switched_off

TEXTS = [
    "the lion went to the store and the queen gave him a ring in the garden",
    "Mary and John had a lot of fun at the school",
    "the teacher found a golden key near the old house",
    "Then Alice and Paul went to the station to give a drink to Kevin",
    "the dog and the cat walked over the bridge at night",
]
NAMES = {"t5": "span-corruption loss", "marian": "loss of its own greedy output"}


@pytest.fixture(scope="module", params=["t5", "marian"])
def made(request, tmp_path_factory):
    return request.param, opened(request.param, tmp_path_factory.mktemp(request.param))


def own_losses(one, batch: Batch) -> list[float]:
    """[example] the plain model's own loss for what it is to write."""
    sources = [row[real].tolist() for row, real in zip(batch.encoder.tokens, batch.encoder.mask, strict=True)]
    targets = [[token for token in row if token >= 0] for row in batch.labels["written"].tolist()]
    return one.losses(sources, targets)


def test_own_texts_are_scored_by_the_models_own_loss(made):
    kind, one = made
    halves = halves_of(one.model, TEXTS, None, 0)
    assert halves.metric.name == halves.facts["metric"] == NAMES[kind]
    assert (len(halves.ordering), len(halves.held_out)) == (2, 3)
    for batch in (halves.ordering, halves.held_out):
        assert metric_of(one.model, batch, halves.metric).tolist() == pytest.approx(own_losses(one, batch), rel=1e-4)
    if kind == "marian":
        read = halves.held_out.encoder
        with torch.no_grad():
            written = one.hf.generate(
                input_ids=read.tokens,
                attention_mask=read.mask.long(),
                do_sample=False,
                num_beams=1,
                max_new_tokens=MOST,
            )
        for row, told in zip(written.tolist(), halves.held_out.labels["written"].tolist(), strict=True):
            kept = [token for token in told if token >= 0]
            assert kept == row[1 : len(kept) + 1]


def test_what_removal_costs_is_what_it_costs_the_plain_model(made):
    _, one = made
    n, gone_number = len(one.model.heads), 6  # three of which write nothing
    share = (n - gone_number) / n
    found = ha.prune(one.model, TEXTS, order="zero-ablation", keep=share, options=ha.PruneOptions(draws=0))
    gone = found.removed(share)
    assert len(gone) == gone_number
    held_out = halves_of(one.model, TEXTS, None, 0).held_out
    whole = torch.tensor(own_losses(one, held_out))
    with contextlib.ExitStack() as off:
        for head in gone:
            off.enter_context(switched_off(one.hf, head.stack, head.layer, head.head))
        without = torch.tensor(own_losses(one, held_out))
    assert found.whole == pytest.approx(whole.mean().item(), rel=1e-4)
    (point,) = found.curves["zero-ablation"]
    assert abs(point.rise) > 1e-3
    assert point.rise == pytest.approx((without - whole).mean().item(), abs=2e-4)


def test_ids_are_read_as_the_texts_that_they_are(made):
    _, one = made
    texts = halves_of(one.model, TEXTS, None, 0).held_out
    ids = [one.words(text)["input_ids"] for text in TEXTS]  # as the encoder reads them, end token included
    again = halves_of(one.model, ids, None, 0).held_out
    assert torch.equal(again.tokens, texts.tokens)
    assert torch.equal(again.encoder.tokens, texts.encoder.tokens)
    assert torch.equal(again.labels["written"], texts.labels["written"])


def test_pairs_keep_the_loss_of_what_the_decoder_reads(made):
    _, one = made
    draw = torch.Generator().manual_seed(0)
    source, target = (torch.randint(30, 400, (4, n), generator=draw) for n in (8, 6))
    real = torch.ones(4, 6, dtype=torch.bool)
    pair = Batch(target, real, encoder=Batch(source, torch.ones(4, 8, dtype=torch.bool)))
    halves = halves_of(one.model, pair, None, 0)
    assert halves.metric.name == "next-token loss"
    with torch.no_grad():
        for e, row in enumerate(halves.held_out.tokens):
            logits = one.hf(input_ids=halves.held_out.encoder.tokens[e][None], decoder_input_ids=row[None]).logits[0]
            expected = torch.nn.functional.cross_entropy(logits[:-1], row[1:])
            found = metric_of(one.model, halves.held_out.rows([e]), halves.metric)
            assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_loss_of_tokens_that_the_encoder_reads_too_is_refused(made):
    _, one = made
    ids = torch.randint(30, 400, (4, 6))
    with pytest.raises(BadInput, match="do not say what it reads"):
        halves_of(one.model, ha.Prompts(batch=ids, metric="next-token-loss"), None, 0)


def test_a_model_that_writes_nothing_is_refused_in_one_line(made):
    kind, one = made
    bare = attach({"t5": T.T5Model, "marian": T.MarianModel}[kind](one.hf.config).eval(), tokenizer=one.model.tokenizer)
    with pytest.raises(BadInput, match="has no loss on texts") as told:
        halves_of(bare, TEXTS, None, 0)
    assert "\n" not in str(told.value)
