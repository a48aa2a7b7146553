ALTER TABLE incarnations DROP COLUMN beats_until;
DROP TABLE shards;
