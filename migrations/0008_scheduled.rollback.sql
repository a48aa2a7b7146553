DROP INDEX notifications_user, notifications_event, notifications_correlation, notifications_scheduled;
UPDATE notifications SET status = 'failed', reason = coalesce(reason, status) WHERE status IN ('scheduled', 'canceled');
ALTER TABLE notifications ADD CONSTRAINT notifications_status_check
    CHECK (status IN ('queued', 'sending', 'delivered', 'failed'));
ALTER TABLE notifications DROP CONSTRAINT notifications_status_known;
ALTER TABLE notifications DROP COLUMN topic, DROP COLUMN correlation_id, DROP COLUMN event_id, DROP COLUMN bulk,
    DROP COLUMN decisions, DROP COLUMN plan;
