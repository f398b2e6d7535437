"""The catalogue's files: YAML read strictly, its faults said in plain words, texts written whole or not at all."""
