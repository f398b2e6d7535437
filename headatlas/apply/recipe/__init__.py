"""Recipes: what interventions learn of a model, kept, measured, put in force and taken elsewhere.

intervention: what fits one; recipe: the object; outcome: what it gains and costs; store: its files; export: elsewhere;
workflow: all of it by name.
"""
