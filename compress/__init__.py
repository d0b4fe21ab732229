"""A static model-compression toolkit: one recipe in, a smaller checkpoint out that other software opens."""
