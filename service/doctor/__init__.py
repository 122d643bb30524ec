"""`dtn doctor`: what is here, what is wrong with it, and what to do."""
