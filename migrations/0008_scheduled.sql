-- Notifications that wait for their time, can be canceled, and know which event and which decisions they came from.
-- Indexes are built without stopping writers, which can not be done inside a transaction. So every statement may be repeated, and
-- what a failed build left behind goes first.
-- transactional: false
-- depends: 0007_events_and_people

ALTER TABLE notifications
    ADD COLUMN IF NOT EXISTS topic text,
    ADD COLUMN IF NOT EXISTS correlation_id text,
    ADD COLUMN IF NOT EXISTS event_id text,
    ADD COLUMN IF NOT EXISTS bulk boolean,          -- of the lane that lets the other go first
    ADD COLUMN IF NOT EXISTS decisions jsonb,       -- how it came about: see dispatcher/decisions.py
    ADD COLUMN IF NOT EXISTS plan jsonb;            -- what is asked again when a scheduled one is due

ALTER TABLE notifications DROP CONSTRAINT IF EXISTS notifications_status_known;
ALTER TABLE notifications ADD CONSTRAINT notifications_status_known
    CHECK (status IN ('scheduled', 'queued', 'sending', 'delivered', 'failed', 'canceled')) NOT VALID;
ALTER TABLE notifications DROP CONSTRAINT IF EXISTS notifications_status_check;
ALTER TABLE notifications VALIDATE CONSTRAINT notifications_status_known;

-- A scheduled row stands in no index that the dispatching of others looks at.
DROP INDEX CONCURRENTLY IF EXISTS notifications_scheduled;
CREATE INDEX CONCURRENTLY notifications_scheduled ON notifications (next_retry_at, id) WHERE status = 'scheduled';

DROP INDEX CONCURRENTLY IF EXISTS notifications_correlation;
CREATE INDEX CONCURRENTLY notifications_correlation ON notifications (organization_id, correlation_id)
    WHERE correlation_id IS NOT NULL;

DROP INDEX CONCURRENTLY IF EXISTS notifications_event;
CREATE INDEX CONCURRENTLY notifications_event ON notifications (organization_id, event_id) WHERE event_id IS NOT NULL;

DROP INDEX CONCURRENTLY IF EXISTS notifications_user;
CREATE INDEX CONCURRENTLY notifications_user ON notifications (organization_id, user_id) WHERE user_id IS NOT NULL;
