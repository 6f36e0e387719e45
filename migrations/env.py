"""Run by Alembic: migrate over the connection that `interbasis.service.storage.schema` provides."""

from alembic import context

from interbasis.service.storage.schema import migration_options

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations run through `interbasis db upgrade`, which knows the store; not through alembic")
context.configure(connection=connection, **migration_options())
with context.begin_transaction():
    context.run_migrations()
