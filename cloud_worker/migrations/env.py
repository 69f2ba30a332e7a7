"""Run the migrations on the connection, and in the transaction, that the ledger hands over."""

from alembic import context

from cloud_worker.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
