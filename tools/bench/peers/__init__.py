"""Other ways to prune a Llama, as their authors publish them, on the same tokens as ours."""
