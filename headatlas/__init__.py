"""headatlas: what do the attention heads of this model do?

>>> import headatlas as ha
>>> model = ha.load("smollm2-135m")             # doctest: +SKIP
>>> atlas = ha.mine(model)                      # doctest: +SKIP
>>> atlas.top("induction-head")                 # doctest: +SKIP
>>> ha.ablate(model, ha.Prompts("ioi"))         # doctest: +SKIP

Each command of the command line is a function here, with the command's options as its parameters or as the fields of an
options object that it takes.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from headatlas import renamed
from headatlas.model.given import checked
from headatlas.version import __version__ as __version__

renamed.install()

# Public name -> module, or module:name where it is called otherwise there; loaded on first use, so that
# `import headatlas` and the command line start at once.
_PUBLIC = {
    # models, prompts, results
    "load": "headatlas.model",
    "Model": "headatlas.model",
    "HeadId": "headatlas.heads",
    "HeadAtlasError": "headatlas.errors",
    "Batch": "headatlas.task",
    "find_task": "headatlas.task",
    "prompts": "headatlas.own_prompts.make",
    "Prompts": "headatlas.methods.prompts",
    "Labels": "headatlas.methods.labels",
    "LabelledPrompts": "headatlas.methods.labels",
    "labels_of": "headatlas.methods.labels",
    "HeadScores": "headatlas.scores",
    "Atlas": "headatlas.atlas",
    # edits
    "Zero": "headatlas.edits",
    "Mean": "headatlas.edits",
    "Resample": "headatlas.edits",
    "Swap": "headatlas.edits",
    "Add": "headatlas.edits",
    "Project": "headatlas.edits",
    "Scale": "headatlas.edits",
    "Attend": "headatlas.edits",
    "Block": "headatlas.edits",
    "Temper": "headatlas.edits",
    "load_edits": "headatlas.edits",
    # what can be measured
    "mine": "headatlas.mining.run",
    "compare": "headatlas.mining.comparison.compare",
    "Comparison": "headatlas.mining.comparison.changes",
    "timeline": "headatlas.mining.timeline.timeline",
    "Timeline": "headatlas.mining.timeline.result",
    "define_head_type": "headatlas.catalogue.own",
    "replicate": "headatlas.mining.claims.replicate",
    "ReplicationOptions": "headatlas.mining.claims.replicate",
    "verify": "headatlas.mining.claims.verify",
    "Verification": "headatlas.mining.claims.verify",
    "write_board": "headatlas.mining.claims.board",
    "PrintedProgress": "headatlas.progress",
    "engine": "headatlas.engines.choosing",
    "campaign": "headatlas.mining.campaign.run",
    "Campaign": "headatlas.mining.campaign.result",
    "RunOptions": "headatlas.methods.options",
    "ask": "headatlas.asking",
    "Texts": "headatlas.methods.texts",
    "SweepOptions": "headatlas.methods.options",
    "ablate": "headatlas.methods.sweeps.ablation",
    "downstream": "headatlas.methods.sweeps.consequences",
    "patch": "headatlas.methods.sweeps.activation_patching",
    "path_patch": "headatlas.methods.path_patching.sweep",
    "attribute": "headatlas.methods.attribution.attribute",
    "AttributionOptions": "headatlas.methods.attribution.attribute",
    "edge_scores": "headatlas.methods.attribution.edge_attribution",
    "head_importance": "headatlas.methods.attribution.importance",
    "score": "headatlas.methods.scoring",
    "direct_effects": "headatlas.methods.direct_logit_attribution",
    "lens": "headatlas.methods.logit_lens",
    "head_lens": "headatlas.methods.logit_lens",
    "flow": "headatlas.methods.information_flow.flow",
    "probe": "headatlas.methods.probing",
    "CrossValidation": "headatlas.methods.probing",
    "syntax": "headatlas.treebanks.run",
    "SyntaxOptions": "headatlas.treebanks.run",
    "Sentence": "headatlas.treebanks.sentences",
    "read_treebank": "headatlas.treebanks.sentences",
    "generated_sentences": "headatlas.treebanks.grammar",
    "weights": "headatlas.methods.weights.views",
    "copy_scores": "headatlas.methods.weights.copying",
    "protected_groups": "headatlas.methods.protected_groups",
    "recall_by_lag": "headatlas.methods.recall_by_lag",
    "averaged_inputs": "headatlas.methods.induction_ablation",
    "pattern_knockout": "headatlas.methods.induction_ablation",
    "Circuit": "headatlas.circuits.circuit",
    "KnockoutOptions": "headatlas.circuits.workflow",
    "find_circuit": "headatlas.circuits.finding",
    "test_circuit": "headatlas.circuits.workflow",
    "circuit_prompts": "headatlas.circuits.workflow",
    "convert_circuit": "headatlas.circuits.workflow",
    "SearchOptions": "headatlas.circuits.finding",
    "cpr_and_cmd": "headatlas.circuits.mib",
    "compare_circuits": "headatlas.circuits.workflow",
    "steer": "headatlas.apply.steering",
    "SteerOptions": "headatlas.apply.steering",
    "head_pages": "headatlas.pages.run",
    "PageOptions": "headatlas.pages.run",
    "HeadPages": "headatlas.pages.result",
    "unknown_heads": "headatlas.pages.unknown",
    "fit_recipe": "headatlas.apply.recipe.workflow",
    "measure_recipe": "headatlas.apply.recipe.workflow",
    "chat": "headatlas.apply.recipe.workflow",
    "export_recipe": "headatlas.apply.recipe.export",
    "load_recipe": "headatlas.apply.recipe.store",
    "save_recipe": "headatlas.apply.recipe.store",
    "Recipe": "headatlas.apply.recipe.recipe",
    "RecipeOptions": "headatlas.apply.recipe.intervention",
    "find_intervention": "headatlas.apply.recipe.intervention",
    "injection_focus": "headatlas.apply.attention_reads",
    "compress_prompt": "headatlas.apply.attention_reads",
    "head_gates": "headatlas.apply.head_gates",
    "GateOptions": "headatlas.apply.head_gates",
    "prune": "headatlas.apply.pruning.workflow",
    "PruneOptions": "headatlas.apply.pruning.options",
    "write_pruned": "headatlas.apply.pruning.write",
    "plan_cache": "headatlas.apply.kv_cache.choosing",
    "CacheOptions": "headatlas.apply.kv_cache.choosing",
    "CachePlan": "headatlas.apply.kv_cache.plan",
    "save_cache_plan": "headatlas.apply.kv_cache.patterns",
    "read_cache_plan": "headatlas.apply.kv_cache.patterns",
    "export_duo_attention": "headatlas.apply.kv_cache.patterns",
    "import_duo_attention": "headatlas.apply.kv_cache.patterns",
    "compare_cache_plans": "headatlas.apply.kv_cache.measuring",
    "write_with_cache": "headatlas.apply.kv_cache.writing",
    "rerank": "headatlas.apply.kv_cache.reranking",
    "query_heads": "headatlas.apply.kv_cache.reranking",
    # models of one's own, and what there is
    "plant": "headatlas.lab.planted",
    "toy": "headatlas.lab.toys:train_toy",
    "clamp": "headatlas.lab.training.clamp",
    "Intervention": "headatlas.lab.training.interventions",
    "translation_toy": "headatlas.lab.translation.toy:train_translation",
    "calibrate": "headatlas.lab.calibrate",
    "check": "headatlas.model:table_of",
    "families": "headatlas.model.families.trial",
    "pull": "headatlas.model.sources.resolve",
    "list_known": "headatlas.overview",
    "show": "headatlas.overview",
    "cite": "headatlas.citing",
}
__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from headatlas.apply.attention_reads import compress_prompt as compress_prompt
    from headatlas.apply.attention_reads import injection_focus as injection_focus
    from headatlas.apply.head_gates import GateOptions as GateOptions
    from headatlas.apply.head_gates import head_gates as head_gates
    from headatlas.apply.kv_cache.choosing import CacheOptions as CacheOptions
    from headatlas.apply.kv_cache.choosing import plan_cache as plan_cache
    from headatlas.apply.kv_cache.measuring import compare_cache_plans as compare_cache_plans
    from headatlas.apply.kv_cache.patterns import export_duo_attention as export_duo_attention
    from headatlas.apply.kv_cache.patterns import import_duo_attention as import_duo_attention
    from headatlas.apply.kv_cache.patterns import read_cache_plan as read_cache_plan
    from headatlas.apply.kv_cache.patterns import save_cache_plan as save_cache_plan
    from headatlas.apply.kv_cache.plan import CachePlan as CachePlan
    from headatlas.apply.kv_cache.reranking import query_heads as query_heads
    from headatlas.apply.kv_cache.reranking import rerank as rerank
    from headatlas.apply.kv_cache.writing import write_with_cache as write_with_cache
    from headatlas.apply.pruning.options import PruneOptions as PruneOptions
    from headatlas.apply.pruning.workflow import prune as prune
    from headatlas.apply.pruning.write import write_pruned as write_pruned
    from headatlas.apply.recipe.export import export_recipe as export_recipe
    from headatlas.apply.recipe.intervention import RecipeOptions as RecipeOptions
    from headatlas.apply.recipe.intervention import find_intervention as find_intervention
    from headatlas.apply.recipe.recipe import Recipe as Recipe
    from headatlas.apply.recipe.store import load_recipe as load_recipe
    from headatlas.apply.recipe.store import save_recipe as save_recipe
    from headatlas.apply.recipe.workflow import chat as chat
    from headatlas.apply.recipe.workflow import fit_recipe as fit_recipe
    from headatlas.apply.recipe.workflow import measure_recipe as measure_recipe
    from headatlas.apply.steering import SteerOptions as SteerOptions
    from headatlas.apply.steering import steer as steer
    from headatlas.asking import ask as ask
    from headatlas.atlas import Atlas as Atlas
    from headatlas.catalogue.own import define_head_type as define_head_type
    from headatlas.circuits.circuit import Circuit as Circuit
    from headatlas.circuits.finding import SearchOptions as SearchOptions
    from headatlas.circuits.finding import find_circuit as find_circuit
    from headatlas.circuits.mib import cpr_and_cmd as cpr_and_cmd
    from headatlas.circuits.workflow import KnockoutOptions as KnockoutOptions
    from headatlas.circuits.workflow import circuit_prompts as circuit_prompts
    from headatlas.circuits.workflow import compare_circuits as compare_circuits
    from headatlas.circuits.workflow import convert_circuit as convert_circuit
    from headatlas.circuits.workflow import test_circuit as test_circuit
    from headatlas.citing import cite as cite
    from headatlas.edits import Add as Add
    from headatlas.edits import Attend as Attend
    from headatlas.edits import Block as Block
    from headatlas.edits import Mean as Mean
    from headatlas.edits import Project as Project
    from headatlas.edits import Resample as Resample
    from headatlas.edits import Scale as Scale
    from headatlas.edits import Swap as Swap
    from headatlas.edits import Temper as Temper
    from headatlas.edits import Zero as Zero
    from headatlas.edits import load_edits as load_edits
    from headatlas.engines.choosing import engine as engine
    from headatlas.errors import HeadAtlasError as HeadAtlasError
    from headatlas.heads import HeadId as HeadId
    from headatlas.lab.calibrate import calibrate as calibrate
    from headatlas.lab.planted import plant as plant
    from headatlas.lab.toys import train_toy as _train_toy
    from headatlas.lab.training.clamp import clamp as clamp
    from headatlas.lab.training.interventions import Intervention as Intervention
    from headatlas.lab.translation.toy import train_translation as _train_translation
    from headatlas.methods.attribution.attribute import AttributionOptions as AttributionOptions
    from headatlas.methods.attribution.attribute import attribute as attribute
    from headatlas.methods.attribution.edge_attribution import edge_scores as edge_scores
    from headatlas.methods.attribution.importance import head_importance as head_importance
    from headatlas.methods.direct_logit_attribution import direct_effects as direct_effects
    from headatlas.methods.induction_ablation import averaged_inputs as averaged_inputs
    from headatlas.methods.induction_ablation import pattern_knockout as pattern_knockout
    from headatlas.methods.information_flow.flow import flow as flow
    from headatlas.methods.labels import LabelledPrompts as LabelledPrompts
    from headatlas.methods.labels import Labels as Labels
    from headatlas.methods.labels import labels_of as labels_of
    from headatlas.methods.logit_lens import head_lens as head_lens
    from headatlas.methods.logit_lens import lens as lens
    from headatlas.methods.options import RunOptions as RunOptions
    from headatlas.methods.options import SweepOptions as SweepOptions
    from headatlas.methods.path_patching.sweep import path_patch as path_patch
    from headatlas.methods.probing import CrossValidation as CrossValidation
    from headatlas.methods.probing import probe as probe
    from headatlas.methods.prompts import Prompts as Prompts
    from headatlas.methods.protected_groups import protected_groups as protected_groups
    from headatlas.methods.recall_by_lag import recall_by_lag as recall_by_lag
    from headatlas.methods.scoring import score as score
    from headatlas.methods.sweeps.ablation import ablate as ablate
    from headatlas.methods.sweeps.activation_patching import patch as patch
    from headatlas.methods.sweeps.consequences import downstream as downstream
    from headatlas.methods.texts import Texts as Texts
    from headatlas.methods.weights.copying import copy_scores as copy_scores
    from headatlas.methods.weights.views import weights as weights
    from headatlas.mining.campaign.result import Campaign as Campaign
    from headatlas.mining.campaign.run import campaign as campaign
    from headatlas.mining.claims.board import write_board as write_board
    from headatlas.mining.claims.replicate import ReplicationOptions as ReplicationOptions
    from headatlas.mining.claims.replicate import replicate as replicate
    from headatlas.mining.claims.verify import Verification as Verification
    from headatlas.mining.claims.verify import verify as verify
    from headatlas.mining.comparison.changes import Comparison as Comparison
    from headatlas.mining.comparison.compare import compare as compare
    from headatlas.mining.run import mine as mine
    from headatlas.mining.timeline.result import Timeline as Timeline
    from headatlas.mining.timeline.timeline import timeline as timeline
    from headatlas.model import Model as Model
    from headatlas.model import load as load
    from headatlas.model import table_of as _table_of
    from headatlas.model.families.trial import families as families
    from headatlas.model.sources.resolve import pull as pull
    from headatlas.overview import list_known as list_known
    from headatlas.overview import show as show
    from headatlas.own_prompts.make import prompts as prompts
    from headatlas.pages.result import HeadPages as HeadPages
    from headatlas.pages.run import PageOptions as PageOptions
    from headatlas.pages.run import head_pages as head_pages
    from headatlas.pages.unknown import unknown_heads as unknown_heads
    from headatlas.progress import PrintedProgress as PrintedProgress
    from headatlas.scores import HeadScores as HeadScores
    from headatlas.task import Batch as Batch
    from headatlas.task import find_task as find_task
    from headatlas.treebanks.grammar import generated_sentences as generated_sentences
    from headatlas.treebanks.run import SyntaxOptions as SyntaxOptions
    from headatlas.treebanks.run import syntax as syntax
    from headatlas.treebanks.sentences import Sentence as Sentence
    from headatlas.treebanks.sentences import read_treebank as read_treebank

    check = _table_of
    toy = _train_toy
    translation_toy = _train_translation


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, _, inner = _PUBLIC[name].partition(":")
        found = getattr(importlib.import_module(module), inner or name)
        return checked(found) if inspect.isfunction(found) else found
    raise AttributeError(f"module 'headatlas' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
