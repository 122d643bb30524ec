"""Our service raced against other servers of the same model, and watched when things go wrong."""
