DROP INDEX notifications_failed_template;
DROP INDEX dead_letters_cause;
ALTER TABLE attempts DROP COLUMN api_key_id;
