-- Canceling by correlation id finds items of digests as well, and what has waited for its time is late only from then on.
-- It only adds, so a process of the release before goes on working beside it.
-- depends: 0009_people

ALTER TABLE notifications ADD COLUMN send_at timestamptz;  -- of a scheduled one, from its release on: when it was to be sent

CREATE INDEX digest_items_correlation ON digest_items (correlation_id) WHERE correlation_id IS NOT NULL;
