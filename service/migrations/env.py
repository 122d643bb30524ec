"""What Alembic runs for each command: on the connection, and in the transaction, given to it."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["version_table"])
context.run_migrations()
