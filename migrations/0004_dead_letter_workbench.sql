-- Dead letters by cause, and who did what by hand.
-- It only adds, so a process of the release before goes on working beside it. Indexes are built without stopping writers, which
-- can not be done inside a transaction. So every statement may be repeated, and what a failed build left behind goes first.
-- transactional: false
-- depends: 0001_first_schema

ALTER TABLE attempts ADD COLUMN IF NOT EXISTS api_key_id uuid;  -- who requeued or discarded, null for what happened by itself

DROP INDEX CONCURRENTLY IF EXISTS dead_letters_cause;

-- Groups are found by skipping from one cause to the next, and counted without a look at the table. For the latter Postgres wants
-- the bare column beside the expression made of it.
CREATE INDEX CONCURRENTLY dead_letters_cause ON dead_letters
    (organization_id, reason, code, channel, coalesce(provider, ''), created_at, notification_id) INCLUDE (provider);

DROP INDEX CONCURRENTLY IF EXISTS notifications_failed_template;

CREATE INDEX CONCURRENTLY notifications_failed_template ON notifications (organization_id, template_id, id)
    WHERE status = 'failed' AND template_id IS NOT NULL;
