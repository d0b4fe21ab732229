"""Tables of bad input, an area a file; tests/test_bad_inputs.py runs the command on every one."""
