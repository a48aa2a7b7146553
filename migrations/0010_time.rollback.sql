DROP INDEX digest_items_correlation;
ALTER TABLE notifications DROP COLUMN send_at;
