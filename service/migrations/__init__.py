"""The tables of persons, one revision after the other; service/migrate.py runs them.

Replicas of two releases share a database while they are replaced one by one. A revision
therefore only adds what the release before can do without; what that release still uses is
removed one release later.
"""
