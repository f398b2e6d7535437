"""Which key-value groups of a cache keep everything, and which only first and recent tokens (`headatlas.model.holding` holds them).

plan: what is kept, in tokens and bytes; choosing: plans by name; gates, spans: what is learned for them on recall texts; measuring:
what plans cost; patterns: files of other tools; reranking: documents ordered by heads that retrieve.
"""
