-- Who dispatches which part of the organizations.
-- depends: 0001_first_schema

-- A row appears when a shard is first taken, so the number of shards stays a setting. Each row is written about once a second.
CREATE TABLE shards (
    shard           integer PRIMARY KEY,
    owner           uuid,                          -- the incarnation; NULL: handed over, free for whoever is next
    epoch           bigint NOT NULL,               -- one more with every change of owner
    lease_until     timestamptz                    -- past: free as well
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Until when an incarnation takes part in sharing the shards out; NULL for one that does not (any more).
ALTER TABLE incarnations ADD COLUMN beats_until timestamptz;
