"""Train, evaluate and export a Domain Transfer Network (PyTorch, offline)."""
