"""Taking pieces out of a tokenizer: what a tokenizer.json holds, what of it must stay, and what is written instead.

Nothing here knows models or text: ids go in, files come out.
"""
