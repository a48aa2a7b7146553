"""The statements about what waits for its time.

Invariant: a scheduled row is found by ``notifications_scheduled``, its id or its correlation id, and changed only where the same
statement checks that it still is scheduled.
"""

from __future__ import annotations

# The clock's only question while nothing is due: the first entries of two small indexes.
NEXT = """
SELECT extract(epoch FROM least(
    (SELECT next_retry_at FROM notifications WHERE status = 'scheduled' ORDER BY next_retry_at LIMIT 1),
    (SELECT due_at FROM digests ORDER BY due_at LIMIT 1)
) - now())::float8
"""

_MOVED = (
    "n.organization_id, n.id, n.channel, n.status, n.reason, extract(epoch FROM n.next_retry_at)::float8, coalesce(n.bulk, false)"
)

# What outlived its expires_at before it was released is canceled. It is no dead letter: nobody has to look at each of what an
# outage made late.
RELEASE = f"""
WITH due AS (
    SELECT id FROM notifications
    WHERE status = 'scheduled' AND next_retry_at <= now() AND (plan IS NULL OR expires_at <= now())
    ORDER BY next_retry_at, id LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE notifications n
SET status = CASE WHEN n.expires_at <= now() THEN 'canceled' ELSE 'queued' END, updated_at = now(),
    reason = CASE WHEN n.expires_at <= now() THEN 'expired' END, send_at = n.next_retry_at
FROM due WHERE n.id = due.id
RETURNING {_MOVED}
"""
DUE = """
SELECT organization_id, id, channel, recipient, user_id, topic, plan, extract(epoch FROM next_retry_at)::float8,
    extract(epoch FROM expires_at)::float8, coalesce(ignores_suppression, false), event_id
FROM notifications WHERE status = 'scheduled' AND next_retry_at <= now() AND plan IS NOT NULL
ORDER BY next_retry_at, id LIMIT %s
"""
# Rows are held in the order of their ids; what was canceled, or ruled on by another clock, since it was read is not found.
RULE = f"""
WITH u AS (
    SELECT * FROM json_to_recordset(%s::json) AS u(id uuid, seen float8, status text, at float8, reason text, decisions jsonb)
), held AS (
    SELECT n.id FROM notifications n JOIN u USING (id) WHERE n.status = 'scheduled' ORDER BY n.id FOR UPDATE OF n
)
UPDATE notifications n
SET status = u.status, reason = u.reason, updated_at = now(), send_at = CASE WHEN u.status = 'queued' THEN n.next_retry_at END,
    next_retry_at = coalesce(to_timestamp(u.at), n.next_retry_at),
    decisions = CASE WHEN u.decisions IS NULL THEN n.decisions ELSE coalesce(n.decisions, '[]') || u.decisions END
FROM u JOIN held USING (id)
WHERE n.id = u.id AND n.status = 'scheduled' AND abs(extract(epoch FROM n.next_retry_at)::float8 - u.seen) < 0.00001
RETURNING {_MOVED}
"""

# The lock on the row decides against the gate: whichever is first, the other finds the row changed.
CANCEL = """
WITH found AS (
    SELECT id, channel, status FROM notifications WHERE organization_id = %(organization_id)s AND id = %(id)s FOR UPDATE
), done AS (
    UPDATE notifications n SET status = 'canceled', reason = 'canceled', updated_at = now()
    FROM found WHERE n.id = found.id AND found.status IN ('scheduled', 'queued')
    RETURNING n.id
)
SELECT found.id, found.channel, CASE WHEN done.id IS NULL THEN found.status ELSE 'canceled' END, done.id IS NOT NULL
FROM found LEFT JOIN done USING (id)
"""
# What has moved into history is final, so there is nothing to decide.
ENDED = """
SELECT id, channel, status, false FROM notification_history WHERE organization_id = %s AND id = %s AND updated_at >= %s
"""
# Rows that somebody holds are passed over, because the gate takes many in an order of its own, and each might wait for the other.
# They are canceled one by one then: who holds nothing else is in no circle.
CANCEL_CORRELATED = """
WITH found AS (
    SELECT id FROM notifications
    WHERE organization_id = %(organization_id)s AND correlation_id = %(correlation_id)s AND status IN ('scheduled', 'queued')
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE notifications n SET status = 'canceled', reason = 'canceled', updated_at = now()
FROM found WHERE n.id = found.id AND n.status IN ('scheduled', 'queued')
RETURNING n.id, n.channel
"""
PASSED_OVER = """
SELECT id FROM notifications
WHERE organization_id = %(organization_id)s AND correlation_id = %(correlation_id)s AND status IN ('scheduled', 'queued')
ORDER BY id LIMIT %(limit)s
"""
# Digests are held before their items are taken away, as whoever joins or tells of them does.
HOLD_DIGESTS_OF = """
SELECT id FROM digests d
WHERE organization_id = %(organization_id)s AND id IN (
    SELECT digest_id FROM digest_items WHERE correlation_id = %(correlation_id)s
) ORDER BY organization_id, rule, user_id, channel, key FOR UPDATE
"""
TAKE_OUT = "DELETE FROM digest_items WHERE digest_id = ANY(%s::uuid[]) AND correlation_id = %s"
DROP_EMPTY = """
DELETE FROM digests d WHERE id = ANY(%s::uuid[]) AND NOT EXISTS (SELECT FROM digest_items i WHERE i.digest_id = d.id)
"""
STANDING = """
SELECT status, count(*) FROM (
    SELECT status FROM notifications WHERE organization_id = %s AND correlation_id = %s LIMIT %s
) AS counted GROUP BY status
"""

# What is due is closed: what comes from then on begins the next digest. Else one that somebody joins all the time would never be
# as it was when it was read. A key that ends it can not be an event's, because nobody knows the id.
CLOSE_DIGESTS = """
WITH due AS (
    SELECT id FROM digests WHERE id IN (SELECT id FROM digests WHERE due_at <= now() ORDER BY due_at, id LIMIT %s)
      AND key <> E'\\x01' || id::text
    ORDER BY organization_id, rule, user_id, channel, key FOR UPDATE
)
UPDATE digests d SET key = E'\\x01' || d.id::text FROM due WHERE d.id = due.id
"""
# The number of a digest's items, and a mark that is another one when any of them has come or gone.
_MARK = """(
    SELECT count(*) || ' ' || coalesce(bit_xor(hashtextextended(i.event_id, 0)), 0) FROM digest_items i WHERE i.digest_id = d.id
)"""
DIGESTS = f"""
SELECT id, organization_id, rule, user_id, channel, key, extract(epoch FROM due_at)::float8, {_MARK} FROM digests d
WHERE due_at <= now() ORDER BY due_at, id LIMIT %s
"""
# Anything may have been gathered in a month. What is read of it is bounded, whoever has it gathered.
DIGEST_ITEMS = """
SELECT d.id, i.event_id, i.correlation_id, i.data, extract(epoch FROM i.at)::float8
FROM unnest(%(ids)s::uuid[]) AS d(id), LATERAL (
    SELECT last.*, row_number() OVER newest AS place, sum(octet_length(last.data::text)) OVER newest AS bytes
    FROM (
        SELECT event_id, correlation_id, data, at FROM digest_items WHERE digest_id = d.id
        ORDER BY at DESC, event_id DESC LIMIT %(items_max)s
    ) AS last
    WINDOW newest AS (ORDER BY at DESC, event_id DESC)
) AS i
WHERE i.place = 1 OR i.bytes <= %(bytes_max)s ORDER BY i.at, i.event_id
"""
HOLD_DIGESTS = """
SELECT id FROM digests WHERE id = ANY(%s::uuid[])
ORDER BY organization_id, rule, user_id, channel, key FOR UPDATE
"""
MARKS = f"SELECT d.id, {_MARK} FROM unnest(%s::uuid[]) AS d(id)"
DROP_DIGESTS = "DELETE FROM digests WHERE id = ANY(%s::uuid[])"
PUT_OFF = "UPDATE digests SET due_at = now() + make_interval(secs => %s) WHERE id = ANY(%s::uuid[])"
