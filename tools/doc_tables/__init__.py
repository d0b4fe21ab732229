"""Tables of the documentation, each made of what the code says of itself."""
