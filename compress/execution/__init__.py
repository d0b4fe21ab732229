"""A run in progress: its options, the steps that are done, and the document that says what they decided."""
