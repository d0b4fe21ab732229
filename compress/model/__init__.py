"""The model that everything works on: opened, traced, its weights read by name, its module built block by block."""
