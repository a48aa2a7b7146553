DROP TABLE erasures;
DROP INDEX contact_points_expiry;
