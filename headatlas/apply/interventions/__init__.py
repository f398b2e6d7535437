"""The interventions of the papers; one a file (`headatlas.apply.recipe.intervention` says what one is)."""
