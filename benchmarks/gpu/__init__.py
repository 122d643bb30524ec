"""The shipped graphs on a GPU: every way to run them, and the floor below."""
