"""`prune: vocab`: which tokens stay, and the model, tokenizer and configs that have no others."""
