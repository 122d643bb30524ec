"""Three replicas, HAProxy as shipped, PostgreSQL: all real, while load runs and things break."""
