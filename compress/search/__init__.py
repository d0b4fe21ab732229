"""`compress auto`: the recipe that we would choose ourselves, its open questions answered by trials on the model."""
