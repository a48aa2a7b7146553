-- Canceling by correlation id finds items of digests as well.
-- depends: 0008_scheduled

CREATE INDEX digest_items_correlation ON digest_items (correlation_id) WHERE correlation_id IS NOT NULL;
