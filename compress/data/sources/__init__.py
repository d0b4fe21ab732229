"""Sources of calibration text: each is a function that yields texts; its keyword arguments are the recipe's."""
