"""Between text and tokens: the tokenizer as the rest sees it, and what a token says."""
