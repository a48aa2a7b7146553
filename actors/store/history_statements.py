"""The statements that move what is final into history, and forget what is older than history.

Invariant: a move is one statement. It checks under the row's lock that the row still is what was found, so whoever changed it in
between keeps it, and a row is in exactly one of the two tables at any moment.
"""

from __future__ import annotations

from dispatcher.policy import KEPT_DAYS, KEPT_DAYS_DEFAULT

FINAL = "('delivered', 'failed', 'canceled')"
_CLASSES = ", ".join(f"'{days}'" for days in KEPT_DAYS)
# For how many days an organization's history is kept, as its policy says at this moment.
_KEPT = f"""coalesce((
    SELECT (d.body ->> 'kept_days')::integer FROM definitions d
    WHERE d.organization_id = n.organization_id AND d.kind = 'policy' AND d.name = 'default'
      AND d.body ->> 'kept_days' IN ({_CLASSES})
), {KEPT_DAYS_DEFAULT})"""
# What may go: it is final, and old enough. A failed one with a dead letter may still be requeued, so it stays until somebody has
# decided about it, or until history would not keep it any longer either.
_MAY_GO = f"""n.status IN {FINAL} AND n.updated_at < now() - make_interval(secs => least(%(after_s)s, {{kept}} * 86400.0))
    AND (n.updated_at < now() - make_interval(hours => 24 * {{kept}})
        OR NOT EXISTS (SELECT FROM dead_letters l WHERE l.notification_id = n.id))"""

SHORTEST = f"""
SELECT least(%s, 86400.0 * min((body ->> 'kept_days')::integer)), extract(epoch FROM now())::float8 FROM definitions
WHERE kind = 'policy' AND name = 'default' AND body ->> 'kept_days' IN ({_CLASSES})
"""
# The next rows in the order of their ids, which is the order in which they came: no index but that of the ids, and a bound on
# what is read, however much there is that has to stay. Those that may go have a class and the day (from 1970 on, UTC) of their
# last change.
LOOK = f"""
WITH n AS (
    SELECT id, organization_id, status, updated_at FROM notifications
    WHERE id > %(after)s::uuid AND id < %(before)s::uuid ORDER BY id LIMIT %(limit)s
), classed AS (
    SELECT n.*, CASE WHEN n.status IN {FINAL} THEN {_KEPT} END AS kept_days FROM n
)
SELECT n.id, n.kept_days, floor(extract(epoch FROM n.updated_at) / 86400)::integer, {_MAY_GO.format(kept="n.kept_days")}
FROM classed n ORDER BY n.id
"""

_COLUMNS = (
    "id, organization_id, status, channel, attempts, attempts_max, unknowns, next_retry_at, expires_at, created_at, updated_at, "
    "user_id, recipient, payload, template_id, locale, idempotency_key, provider, provider_config_id, provider_message_id, "
    "reason, topic, correlation_id, event_id, bulk, decisions"
)
# The steps of a row's life are read before they go with it. What history would not keep is not written there.
MOVE = f"""
WITH due AS (
    SELECT n.id, u.kept_days FROM notifications n
    JOIN unnest(%(ids)s::uuid[], %(kept_days)s::smallint[]) AS u(id, kept_days) ON n.id = u.id
    WHERE CASE WHEN n.id = u.id THEN {_MAY_GO.format(kept="u.kept_days")} END
    ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
), moved AS (
    DELETE FROM notifications n USING due WHERE n.id = due.id RETURNING n.*, due.kept_days
), told AS (
    DELETE FROM confirmations c USING moved WHERE c.notification_id = moved.id RETURNING c.*
), kept AS (
    INSERT INTO notification_history (kept_days, {_COLUMNS}, steps, reports, confirmation)
    SELECT kept_days, {_COLUMNS},
        (SELECT jsonb_agg(to_jsonb(a) - '{{notification_id,organization_id}}'::text[] ORDER BY a.at, a.attempt)
            FROM attempts a WHERE a.notification_id = moved.id),
        (SELECT jsonb_agg(jsonb_build_object('at', f.at, 'kind', f.kind, 'code', f.code) ORDER BY f.at, f.key)
            FROM feedback f WHERE f.notification_id = moved.id),
        (SELECT to_jsonb(told) - 'notification_id' FROM told WHERE told.notification_id = moved.id)
    FROM moved WHERE updated_at >= now() - make_interval(hours => 24 * kept_days)
    RETURNING id
)
SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM kept)
"""
# What was confirmed after its notification had gone, or in the very moment. Of two that know something, the higher rank stays, as
# among reports that come before. What is nowhere any more needs no confirmation.
LATE = """
WITH page AS (
    SELECT notification_id AS id FROM confirmations
    WHERE notification_id > %(after)s::uuid AND notification_id < %(before)s::uuid ORDER BY notification_id LIMIT %(limit)s
), late AS (
    DELETE FROM confirmations c USING page
    WHERE c.notification_id = page.id AND NOT EXISTS (SELECT FROM notifications n WHERE n.id = page.id)
    RETURNING c.*
), put AS (
    UPDATE notification_history h SET confirmation = to_jsonb(late) - 'notification_id'
    FROM late
    WHERE h.id = late.notification_id
      AND (h.confirmation IS NULL OR (late.rank, (h.confirmation ->> 'at')::timestamptz, late.code)
        > ((h.confirmation ->> 'rank')::smallint, late.at, h.confirmation ->> 'code'))
    RETURNING h.id
)
SELECT count(*), max(id::text), (SELECT count(*) FROM late), (SELECT count(*) FROM put) FROM page
"""

PARTITIONS = """
SELECT c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY(%s::text[]::regclass[]) ORDER BY c.relname
"""

# Whoever takes a delta adds it, in the same statement; those that somebody else is taking are passed over.
FOLD = """
WITH taken AS (
    DELETE FROM count_deltas WHERE ctid = ANY(ARRAY(SELECT ctid FROM count_deltas LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING organization_id, day, channel, what, reason, n
), added AS (
    INSERT INTO counts AS c (organization_id, day, channel, what, reason, n)
    SELECT organization_id, day, channel, what, reason, sum(n) FROM taken
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (organization_id, day, channel, what, reason) DO UPDATE SET n = c.n + excluded.n
)
SELECT count(*) FROM taken
"""

FORGET_EVENTS = """
DELETE FROM events WHERE (organization_id, id) IN (
    SELECT organization_id, id FROM events WHERE received_at < now() - make_interval(secs => %s)
    ORDER BY received_at LIMIT %s FOR UPDATE SKIP LOCKED
)
"""
FORGET_ANSWERS = """
DELETE FROM batch_answers WHERE (organization_id, idempotency_key) IN (
    SELECT organization_id, idempotency_key FROM batch_answers WHERE created_at < now() - make_interval(secs => %s)
    ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
)
"""

ERASE = """
UPDATE notification_history
SET user_id = NULL, recipient = %(recipient)s, payload = '{}', idempotency_key = NULL, decisions = NULL
WHERE organization_id = %(organization_id)s AND user_id = %(user_id)s
"""
OF_USER = """
SELECT id, channel, status, recipient, payload, locale, topic, created_at, updated_at FROM notification_history
WHERE organization_id = %s AND user_id = %s ORDER BY id
"""
