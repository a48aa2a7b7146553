DROP TABLE digest_items, digests, events, cap_times, preferences, contact_points, users;
ALTER TABLE notification_templates DROP COLUMN schema, DROP COLUMN parts, DROP COLUMN published_at;
DROP TABLE definitions;
