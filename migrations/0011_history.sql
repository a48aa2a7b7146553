-- Where notifications go when nothing will change them any more, and how many there were of each kind.
-- It only adds, so a process of the release before goes on working beside it, and is counted as well.
-- depends: 0010_time

-- One class of partitions for each length of time that history may be kept (KEPT_DAYS in dispatcher/policy.py), and in it one
-- partition for each span of days in which rows had their last change (dispatcher/retention.py). The archivist makes and drops
-- those of days. The columns are called as in notifications, so that one list of columns reads both.
CREATE TABLE notification_history (
    kept_days       smallint NOT NULL,
    id              uuid NOT NULL,
    organization_id text NOT NULL,
    status          text NOT NULL,
    channel         text NOT NULL,
    attempts        smallint NOT NULL,
    attempts_max    smallint NOT NULL,
    unknowns        smallint NOT NULL,
    next_retry_at   timestamptz,
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,          -- of the last change: from then on its time is counted
    user_id         text,
    recipient       text NOT NULL,
    payload         jsonb NOT NULL,
    template_id     uuid,
    locale          text,
    idempotency_key text,
    provider        text,
    provider_config_id uuid,
    provider_message_id text,
    reason          text,
    topic           text,
    correlation_id  text,
    event_id        text,
    bulk            boolean,
    decisions       jsonb,
    steps           jsonb,                         -- its rows of attempts
    reports         jsonb,                         -- its rows of feedback, as far as there were any
    confirmation    jsonb                          -- its row of confirmations
) PARTITION BY LIST (kept_days);
CREATE INDEX notification_history_id ON notification_history (id);
CREATE INDEX notification_history_page ON notification_history (organization_id, id);
CREATE INDEX notification_history_user ON notification_history (organization_id, user_id) WHERE user_id IS NOT NULL;
CREATE TABLE notification_history_1 PARTITION OF notification_history FOR VALUES IN (1) PARTITION BY RANGE (updated_at);
CREATE TABLE notification_history_7 PARTITION OF notification_history FOR VALUES IN (7) PARTITION BY RANGE (updated_at);
CREATE TABLE notification_history_30 PARTITION OF notification_history FOR VALUES IN (30) PARTITION BY RANGE (updated_at);
CREATE TABLE notification_history_90 PARTITION OF notification_history FOR VALUES IN (90) PARTITION BY RANGE (updated_at);
CREATE TABLE notification_history_180 PARTITION OF notification_history FOR VALUES IN (180) PARTITION BY RANGE (updated_at);
CREATE TABLE notification_history_365 PARTITION OF notification_history FOR VALUES IN (365) PARTITION BY RANGE (updated_at);
CREATE TABLE notification_history_730 PARTITION OF notification_history FOR VALUES IN (730) PARTITION BY RANGE (updated_at);
CREATE TABLE notification_history_3650 PARTITION OF notification_history FOR VALUES IN (3650) PARTITION BY RANGE (updated_at);

-- What happened on a day (UTC), how often.
CREATE TABLE counts (
    organization_id text NOT NULL,
    day             date NOT NULL,
    channel         text NOT NULL,
    what            text NOT NULL,                 -- accepted, delivered, failed, canceled, requeued; what providers report
    reason          text NOT NULL,                 -- empty for those of which there is nothing to say
    n               bigint NOT NULL,
    PRIMARY KEY (organization_id, day, channel, what, reason)
) WITH (fillfactor = 80);
-- What is to be added to it. Appending takes no lock that anybody waits for; the archivist folds it into counts.
CREATE TABLE count_deltas (
    organization_id text NOT NULL,
    day             date NOT NULL,
    channel         text NOT NULL,
    what            text NOT NULL,
    reason          text NOT NULL,
    n               integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- Whatever statement writes notifications, of whatever release, its counts commit with it or not at all.
CREATE FUNCTION notifications_count_accepted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO count_deltas (organization_id, day, channel, what, reason, n)
    SELECT organization_id, (now() AT TIME ZONE 'UTC')::date, channel, 'accepted', '', sum(1)
    FROM new_rows GROUP BY organization_id, channel;
    RETURN NULL;
END
$$;
-- A row counts where it has become final, or is so no longer. One that was final before and after adds up to nothing.
CREATE FUNCTION notifications_count_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO count_deltas (organization_id, day, channel, what, reason, n)
    SELECT organization_id, (now() AT TIME ZONE 'UTC')::date, channel,
        CASE WHEN sum(change) > 0 THEN status ELSE 'requeued' END, why, abs(sum(change))
    FROM (
        SELECT organization_id, channel, status, CASE WHEN status = 'failed' THEN coalesce(reason, '') ELSE '' END AS why,
            1 AS change
        FROM new_rows WHERE status IN ('delivered', 'failed', 'canceled')
        UNION ALL
        SELECT organization_id, channel, status, CASE WHEN status = 'failed' THEN coalesce(reason, '') ELSE '' END, -1
        FROM old_rows WHERE status IN ('delivered', 'failed', 'canceled')
    ) AS changed
    GROUP BY organization_id, channel, status, why HAVING sum(change) <> 0;
    RETURN NULL;
END
$$;
CREATE TRIGGER notifications_accepted AFTER INSERT ON notifications REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION notifications_count_accepted();
CREATE TRIGGER notifications_ended AFTER UPDATE ON notifications REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION notifications_count_ended();

-- What providers report in the end of what they had taken on, where that is bad: rare, so it may look for whose it was. A
-- notification counts once for each state it comes to, and only comes to worse ones. The worst so far of one that is history
-- stands in its row.
CREATE FUNCTION confirmations_count_first() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM new_rows WHERE state IN ('refused', 'bounced', 'invalid', 'complained')) THEN
        INSERT INTO count_deltas (organization_id, day, channel, what, reason, n)
        SELECT whose.organization_id, (now() AT TIME ZONE 'UTC')::date, whose.channel, c.state, c.code, sum(1)
        FROM new_rows c, LATERAL (
            SELECT n.organization_id, n.channel FROM notifications n WHERE n.id = c.notification_id
            UNION ALL
            SELECT h.organization_id, h.channel FROM notification_history h
            WHERE h.id = c.notification_id AND c.rank > coalesce((h.confirmation ->> 'rank')::smallint, -1)
        ) AS whose
        WHERE c.state IN ('refused', 'bounced', 'invalid', 'complained')
        GROUP BY whose.organization_id, whose.channel, c.state, c.code;
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION confirmations_count_worse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM new_rows WHERE state IN ('refused', 'bounced', 'invalid', 'complained')) THEN
        INSERT INTO count_deltas (organization_id, day, channel, what, reason, n)
        SELECT whose.organization_id, (now() AT TIME ZONE 'UTC')::date, whose.channel, c.state, c.code, sum(1)
        FROM new_rows c JOIN old_rows o USING (notification_id), LATERAL (
            SELECT n.organization_id, n.channel FROM notifications n WHERE n.id = c.notification_id
            UNION ALL
            SELECT h.organization_id, h.channel FROM notification_history h
            WHERE h.id = c.notification_id AND c.rank > coalesce((h.confirmation ->> 'rank')::smallint, -1)
        ) AS whose
        WHERE c.state IN ('refused', 'bounced', 'invalid', 'complained') AND c.state <> o.state
        GROUP BY whose.organization_id, whose.channel, c.state, c.code;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER confirmations_first AFTER INSERT ON confirmations REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION confirmations_count_first();
CREATE TRIGGER confirmations_worse AFTER UPDATE ON confirmations REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION confirmations_count_worse();
