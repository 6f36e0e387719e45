"""Stored files of checkpoints, queues, schedules, and tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrade to this revision."""
    with op.batch_alter_table("checkpoint") as table:
        table.add_column(sa.Column("about", sa.JSON(), nullable=True))
        table.add_column(sa.Column("file_sha256", sa.String(64), nullable=True))
        table.create_foreign_key("fk_checkpoint_file_sha256", "artifact", ["file_sha256"], ["sha256"])
        table.create_index("ix_checkpoint_file_sha256", ["file_sha256"])
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("queue", sa.String(80), nullable=False, server_default="default"))
        table.add_column(sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
    with op.batch_alter_table("job") as table:
        table.alter_column("queue", existing_type=sa.String(80), server_default=None)
        table.alter_column("version", existing_type=sa.Integer(), server_default=None)
    op.create_table(
        "schedule",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("cron", sa.String(), nullable=True),
        sa.Column("folder", sa.String(), nullable=True),
        sa.Column("choices", sa.JSON(), nullable=False),
        sa.Column("queue", sa.String(80), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("timeout", sa.Double(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("next_run", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_run", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("jobs", sa.JSON(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_schedule"),
        sa.UniqueConstraint("id", name="uq_schedule_id"),
    )
    op.create_table(
        "token",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("revoked", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_token"),
        sa.UniqueConstraint("id", name="uq_token_id"),
    )


def downgrade() -> None:
    """Return to the revision before."""
    op.drop_table("token")
    op.drop_table("schedule")
    with op.batch_alter_table("job") as table:
        table.drop_column("version")
        table.drop_column("queue")
    with op.batch_alter_table("checkpoint") as table:
        table.drop_index("ix_checkpoint_file_sha256")
        table.drop_constraint("fk_checkpoint_file_sha256", type_="foreignkey")
        table.drop_column("file_sha256")
        table.drop_column("about")
