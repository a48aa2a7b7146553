ALTER TABLE notifications DROP COLUMN unknown_since, DROP COLUMN unknown_last;
