"""How fast the DTN of digits trains, beside the loop a reader of the paper would write."""
