"""Mining: from a model to an atlas of its heads."""
