"""`dtn bulk`: millions of pictures through a model, each exactly once."""
