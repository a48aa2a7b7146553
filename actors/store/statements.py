"""The statements of the store port. Each is a batch, and each may be repeated when its answer was lost.

Invariant: a row changes hands only where its present state is checked in the same statement, by status, claimer and attempt.
"""

from __future__ import annotations

from actors.store.contact_statements import REFUSED, SUPPRESSED_AS

_INSERT = f"""
INSERT INTO notifications (
    id, organization_id, channel, attempts_max, created_at, updated_at, expires_at,
    user_id, recipient, payload, template_id, locale, idempotency_key, request_hash, ignores_suppression{{columns}}
)
SELECT
    id, organization_id, channel, attempts_max, to_timestamp(created_at), to_timestamp(created_at), to_timestamp(expires_at),
    user_id, recipient, payload, template_id, locale, idempotency_key, decode(request_hash, 'hex'), ignores_suppression{{values}}
FROM json_to_recordset(%s::json) AS r(
    id uuid, organization_id text, channel text, attempts_max smallint, created_at float8, expires_at float8,
    user_id text, recipient text, payload jsonb, template_id uuid, locale text, idempotency_key text, request_hash text,
    ignores_suppression boolean{{types}}
)
WHERE NOT EXISTS ({SUPPRESSED_AS.format(row="r")})
ON CONFLICT DO NOTHING
"""
INSERT = _INSERT.format(columns="", values="", types="")
# With what only some have: those that come from an event, wait for their time or belong to something.
INSERT_PLANNED = (
    _INSERT.format(
        columns=", status, next_retry_at, topic, correlation_id, event_id, bulk, decisions, plan",
        values=", coalesce(r.status, 'queued'), to_timestamp(send_at), topic, correlation_id, event_id, bulk, decisions, plan",
        types=", status text, send_at float8, topic text, correlation_id text, event_id text, bulk boolean,"
        " decisions jsonb, plan jsonb",
    )
    + "RETURNING id\n"
)
# Which of these were left out because of their contacts. What is there was not, whatever has become of its contact since.
NOT_INSERTED = """
SELECT u.id, c.status
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) AS u(id, organization_id, channel, recipient)
JOIN contacts c ON c.organization_id = u.organization_id AND c.channel = u.channel
    AND c.address = contact_address(u.channel, u.recipient)
WHERE c.status <> 'active' AND NOT EXISTS (SELECT FROM notifications n WHERE n.id = u.id)
"""
SUPPRESSED = """
SELECT u.channel, u.recipient, c.status
FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(organization_id, channel, recipient)
JOIN contacts c ON c.organization_id = u.organization_id AND c.channel = u.channel
    AND c.address = contact_address(u.channel, u.recipient)
WHERE c.status <> 'active'
"""

EXISTING = """
SELECT n.organization_id, n.idempotency_key, n.id, n.request_hash, extract(epoch FROM n.created_at)::float8, n.channel
FROM unnest(%s::text[], %s::text[]) AS k(organization_id, idempotency_key)
JOIN notifications n USING (organization_id, idempotency_key)
"""

KEEP_ANSWERS = """
INSERT INTO batch_answers (organization_id, idempotency_key, request_hash, answer)
SELECT organization_id, idempotency_key, decode(request_hash, 'hex'), answer
FROM json_to_recordset(%s::json) AS r(organization_id text, idempotency_key text, request_hash text, answer text)
ON CONFLICT DO NOTHING
"""

# What passed in a try whose answer was lost goes back first, whatever has become of the lease since: nobody is sending it.
HAND_BACK = """
UPDATE notifications SET status = 'queued', attempts = attempts - 1, claimed_by = NULL
WHERE id = ANY(%(ids)s::uuid[]) AND status = 'sending' AND claimed_by = %(claimer)s
"""
# Whose token a recipient is: the rule of dispatcher/audience.py.
_AUDIENCE = """CASE WHEN channel <> 'push' THEN '' WHEN starts_with(recipient, '{') THEN ':web'
    WHEN recipient ~ '^[0-9A-Fa-f]{64,}$' THEN ':apple' ELSE ':google' END"""
_CHANNEL = "organization_id || '/' || channel"
_PART = f"{_CHANNEL} || {_AUDIENCE}"


def _gate(way: str, is_open: str = "") -> str:
    """Through whom is on record with the intent. Where an earlier attempt is unresolved that stays, unless it is unbound."""
    return f"""
UPDATE notifications
SET status = 'sending', attempts = attempts + 1, claimed_by = %(claimer)s, updated_at = now(),
    provider_config_id = CASE WHEN unknown_since IS NULL OR provider_config_id = ANY(%(unbound)s::uuid[])
        THEN coalesce({way}, provider_config_id) ELSE coalesce(provider_config_id, {way}) END
WHERE id = ANY(%(ids)s::uuid[]) AND status = 'queued'
  AND (next_retry_at IS NULL OR next_retry_at <= now() + interval '10 milliseconds'){is_open}
  AND EXISTS (SELECT FROM incarnations WHERE incarnations.id = %(claimer)s AND lease_until > now())
RETURNING id, organization_id, channel, recipient, payload, attempts, attempts_max,
          extract(epoch FROM coalesce(send_at, created_at))::float8, extract(epoch FROM expires_at)::float8, unknowns,
          extract(epoch FROM now() - unknown_since)::float8, extract(epoch FROM now() - unknown_last)::float8,
          provider_config_id, ({SUPPRESSED_AS.format(row="notifications")})
"""


_WAY = f"(%(through)s::jsonb ->> ({_CHANNEL}))::uuid"
_OPEN = f"NOT ({_CHANNEL} = ANY(%(closed)s::text[]))"
GATE = _gate(_WAY)
GATE_OPEN = _gate(_WAY, f" AND {_OPEN}")
# Where audiences are told apart: a row is in the lane of its audience if anything is said about that, else in its channel's.
GATE_PARTED = _gate(
    f"coalesce((%(through)s::jsonb ->> ({_PART}))::uuid, {_WAY})",
    f" AND NOT ({_PART} = ANY(%(closed)s::text[])) AND ({_OPEN} OR %(through)s::jsonb ? ({_PART}))",
)

# What may not be sent after all, because of what was heard of its contact since it was accepted. No attempt was begun.
GIVE_UP = """
WITH done AS (
    UPDATE notifications n
    SET status = 'failed', attempts = n.attempts - 1, claimed_by = NULL, next_retry_at = NULL, reason = u.code, updated_at = now()
    FROM unnest(%s::uuid[], %s::text[]) AS u(id, code)
    WHERE n.id = u.id AND n.status = 'sending' AND n.claimed_by = %s
    RETURNING n.id, n.organization_id, n.channel, u.code
), dead AS (
    INSERT INTO dead_letters (notification_id, organization_id, reason, code, channel, created_at)
    SELECT id, organization_id, 'suppressed', code, channel, now() FROM done
    ON CONFLICT DO NOTHING
)
SELECT organization_id, id, channel, code FROM done
"""

# What the gate did not let through, and why: only queued rows have a future here.
LEFT_OUT = f"""
SELECT id, organization_id, channel, status, greatest(0, extract(epoch FROM next_retry_at - now()))::float8, {_AUDIENCE}
FROM notifications WHERE id = ANY(%s::uuid[])
"""

# In both records the guard is a CASE about both sides of the join, so that rows are found by id and by nothing else. Statistics
# say that nothing is being sent; the planner would begin with whatever index knows of that, and read all of it for each record.
RECORD_DELIVERED = """
UPDATE notifications n
SET status = 'delivered', claimed_by = NULL, next_retry_at = NULL, reason = NULL, updated_at = now(),
    provider = u.provider, provider_config_id = u.config_id, provider_message_id = u.provider_message_id
FROM unnest(%s::uuid[], %s::smallint[], %s::text[], %s::uuid[], %s::text[])
    AS u(id, attempt, provider, config_id, provider_message_id)
WHERE n.id = u.id AND n.attempts = u.attempt AND CASE WHEN n.id = u.id THEN n.claimed_by = %s AND n.status = 'sending' END
RETURNING n.id
"""

RECORD_OTHERS = f"""
WITH u AS (
    SELECT * FROM json_to_recordset(%s::json) AS u(id uuid, attempt smallint, status text, refund smallint, doubles smallint,
        retry_in_s float8, outcome text, code text, dead text, provider text, config_id uuid, message_id text,
        contact text, since float8)
), done AS (
    UPDATE notifications n
    SET status = u.status, attempts = n.attempts - u.refund, unknowns = n.unknowns + u.doubles,
        -- updated_at still is when the attempt passed the gate: it had no effect before that, and none after this moment
        unknown_since = CASE WHEN u.doubles > 0 THEN coalesce(n.unknown_since, n.updated_at) ELSE n.unknown_since END,
        unknown_last = CASE WHEN u.doubles > 0 THEN now() ELSE n.unknown_last END,
        claimed_by = NULL, updated_at = now(), provider_message_id = coalesce(u.message_id, n.provider_message_id),
        next_retry_at = now() + make_interval(secs => u.retry_in_s),
        reason = CASE WHEN u.status <> 'delivered' THEN u.code END,
        provider = coalesce(u.provider, n.provider), provider_config_id = coalesce(u.config_id, n.provider_config_id)
    FROM u
    WHERE n.id = u.id AND n.attempts = u.attempt AND CASE WHEN n.id = u.id THEN n.claimed_by = %s AND n.status = 'sending' END
    RETURNING n.id, n.organization_id, n.channel, n.next_retry_at, u.attempt, u.outcome, u.code, u.dead, u.provider, u.config_id,
        n.recipient, u.contact, u.since
), timeline AS (
    INSERT INTO attempts
        (notification_id, attempt, organization_id, outcome, code, provider, provider_config_id, at, next_retry_at)
    SELECT id, attempt, organization_id, outcome, code, provider, config_id, now(), next_retry_at
    FROM done WHERE outcome <> 'interrupted'  -- what never began is no attempt
), dead AS (
    INSERT INTO dead_letters (notification_id, organization_id, reason, code, channel, provider, created_at)
    SELECT id, organization_id, dead, code, channel, provider, now() FROM done WHERE dead IS NOT NULL
    ON CONFLICT DO NOTHING
), refused AS (
    SELECT DISTINCT ON (organization_id, channel, contact_address(channel, recipient))
        organization_id, channel, recipient, contact AS status, code, coalesce(to_timestamp(since), now()) AS at, provider
    FROM done WHERE contact IS NOT NULL
    ORDER BY organization_id, channel, contact_address(channel, recipient), at DESC
), gone AS ({REFUSED} RETURNING c.organization_id, c.channel, c.address, c.status
), dead_tokens AS (
    DELETE FROM contact_points p USING gone g
    WHERE g.channel = 'push' AND g.status = 'invalid' AND p.channel = 'push'
      AND p.organization_id = g.organization_id AND p.address = g.address
)
SELECT id FROM done
"""

# Whose answer was lost: which of these verdicts stand in the rows already.
RECORDED = """
SELECT n.id
FROM notifications n
JOIN unnest(%s::uuid[], %s::text[], %s::smallint[], %s::text[]) AS u(id, status, attempts, reason) ON n.id = u.id
WHERE n.status = u.status AND n.attempts = u.attempts AND n.reason IS NOT DISTINCT FROM u.reason
"""

RENEW = """
UPDATE incarnations SET lease_until = now() + make_interval(secs => %s) WHERE id = %s AND lease_until > now() RETURNING id
"""
REGISTER = """
INSERT INTO incarnations (id, lease_until) VALUES (%s, now() + make_interval(secs => %s))
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
"""
# With its lease an incarnation gives up its shards (see shards.py), so that nobody waits for the end of theirs either.
_FREE_SHARDS = """
WITH mine AS (SELECT shard FROM shards WHERE {whose} ORDER BY shard FOR UPDATE),
freed AS (UPDATE shards s SET owner = NULL, lease_until = NULL FROM mine WHERE s.shard = mine.shard)
"""
FORGET_ALL = _FREE_SHARDS.format(whose="owner IS NOT NULL") + "DELETE FROM incarnations"
RELEASE = _FREE_SHARDS.format(whose="owner = %(me)s") + "DELETE FROM incarnations WHERE id = %(me)s"

# An attempt whose process is gone: it may or may not have reached the provider, so it counts as a possible double. It costs
# none of the notification's attempts (attempts_max moves along), only one of its rescues. It may be what killed the process, so
# what was lost together does not come back together: see rescue_delay_s in dispatcher/backoff.py, which draws the same delay.
_RESCUE = """
WITH lost AS (
    SELECT id FROM notifications n
    WHERE status = 'sending' AND {whose}
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), done AS (
    UPDATE notifications n
    SET status = CASE WHEN n.rescues >= %(rescues_max)s THEN 'failed' ELSE 'queued' END,
        claimed_by = NULL, updated_at = now(), reason = 'process_lost',
        next_retry_at = CASE WHEN n.rescues < %(rescues_max)s THEN now() + make_interval(secs =>
            greatest(0, least(
                CASE WHEN n.claimed_by <> %(claimer)s AND n.rescues > 0 THEN %(later_s)s
                     WHEN n.claimed_by <> %(claimer)s OR n.rescues > 0 THEN %(first_s)s ELSE 0 END::float8,
                extract(epoch FROM n.expires_at - now())::float8 / 2
            )) * (('x' || left(encode(sha256(convert_to(n.id || ' ' || n.rescues, 'UTF8')), 'hex'), 8))::bit(32)::bigint / 2 ^ 32)
        ) END,
        unknowns = n.unknowns + 1, rescues = n.rescues + 1, attempts_max = n.attempts_max + 1,
        unknown_since = coalesce(n.unknown_since, n.updated_at), unknown_last = now(),
        provider = coalesce((SELECT c.provider FROM delivery_provider_configs c WHERE c.id = n.provider_config_id), n.provider)
    FROM lost WHERE n.id = lost.id
    RETURNING n.id, n.organization_id, n.channel, n.attempts, n.status, n.next_retry_at, n.provider, n.provider_config_id,
        n.bulk
), timeline AS (
    INSERT INTO attempts
        (notification_id, attempt, organization_id, outcome, code, provider, provider_config_id, at, next_retry_at)
    SELECT id, attempts, organization_id, 'unknown', 'process_lost', provider, provider_config_id, now(), next_retry_at FROM done
), dead AS (
    INSERT INTO dead_letters (notification_id, organization_id, reason, code, channel, provider, created_at)
    SELECT id, organization_id, 'poison', 'process_lost', channel, provider, now() FROM done WHERE status = 'failed'
    ON CONFLICT DO NOTHING
)
SELECT organization_id, id, channel, status = 'failed', coalesce(extract(epoch FROM next_retry_at - now()), 0)::float8,
       coalesce(bulk, false)
FROM done
"""
RESCUE = _RESCUE.format(
    whose="NOT EXISTS (SELECT FROM incarnations i WHERE i.id = n.claimed_by AND i.lease_until > now() - interval '1 second')"
)
# The attempts of an actor that has crashed of which none was begun. Those that an earlier try put back are named again.
UNBEGIN = """
WITH u AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(attempts)s::smallint[]) AS u(id, attempt)
), back AS (
    UPDATE notifications n SET status = 'queued', attempts = n.attempts - 1, claimed_by = NULL, updated_at = now()
    FROM u
    WHERE n.id = u.id AND n.attempts = u.attempt AND n.status = 'sending' AND n.claimed_by = %(claimer)s
      AND n.organization_id = %(organization_id)s
    RETURNING n.id
)
SELECT id FROM back
UNION ALL
SELECT n.id FROM notifications n JOIN u USING (id) WHERE n.status = 'queued' AND n.attempts = u.attempt - 1
"""
DISOWN = _RESCUE.format(whose="claimed_by = %(claimer)s AND organization_id = %(organization_id)s")
# A row that was gated anew since it was read is younger.
RECLAIM = _RESCUE.format(
    whose="claimed_by = %(claimer)s AND id = ANY(%(ids)s::uuid[])"
    " AND updated_at < now() - make_interval(secs => %(older_than_s)s)"
)
SENDING = """
SELECT organization_id, id FROM notifications
WHERE status IN ('queued', 'sending') AND status = 'sending' AND claimed_by = %s
  AND updated_at < now() - make_interval(secs => %s)
ORDER BY updated_at LIMIT %s
"""
PRUNE = """
DELETE FROM incarnations i WHERE lease_until < now() - interval '1 hour'
AND NOT EXISTS (SELECT FROM notifications n WHERE n.status = 'sending' AND n.claimed_by = i.id)
"""

QUEUED = """
SELECT organization_id, id, greatest(0, extract(epoch FROM next_retry_at - now()))::float8,
       extract(epoch FROM updated_at)::float8, bulk
FROM notifications
WHERE status IN ('queued', 'sending') AND status = 'queued' AND (updated_at, id) > (to_timestamp(%s), %s::uuid)
  AND greatest(updated_at, next_retry_at) < now() - make_interval(secs => %s)
ORDER BY updated_at, id LIMIT %s
"""
QUEUED_ALL = QUEUED.replace("greatest(updated_at, next_retry_at) < now() - make_interval(secs => %s)", "%s::float8 IS NOT NULL")

# Whoever claims an expired notification gives it up as well; this finds those that nobody can claim, for want of a channel.
EXPIRE = """
WITH late AS (
    SELECT id FROM notifications WHERE status = 'queued' AND expires_at < now()
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
), done AS (
    UPDATE notifications n SET status = 'failed', next_retry_at = NULL, reason = 'expired', updated_at = now()
    FROM late WHERE n.id = late.id
    RETURNING n.id, n.organization_id, n.channel
), dead AS (
    INSERT INTO dead_letters (notification_id, organization_id, reason, code, channel, created_at)
    SELECT id, organization_id, 'expired', 'expired', channel, now() FROM done
    ON CONFLICT DO NOTHING
)
SELECT organization_id, id, channel FROM done
"""
