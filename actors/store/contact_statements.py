"""The statements about contacts that other statements are made of. See dispatcher/contacts.py for what a contact is."""

from __future__ import annotations

# Inside a statement about ``row``s of notifications: why the contact of one may not be used; nothing when it may.
SUPPRESSED_AS = """
    SELECT c.status FROM contacts c
    WHERE c.organization_id = {row}.organization_id AND c.channel = {row}.channel
      AND c.address = contact_address({row}.channel, {row}.recipient) AND c.status <> 'active'
      AND NOT (coalesce({row}.ignores_suppression, false) AND c.status IN ('unsubscribed', 'bounced'))
"""

# What was refused for good at sending. ``refused`` has organization_id, channel, recipient, status, code, at and provider, one
# row a contact. As in Contact.after the later wins.
REFUSED = """
    INSERT INTO contacts AS c (id, organization_id, channel, address, recipient, provider, changed_at,
        complained_at, complaint_code, unsubscribed_at, unsubscribe_code, failed_at, failed_as, failure_code)
    SELECT gen_random_uuid(), organization_id, channel, contact_address(channel, recipient), recipient, provider, now(),
        CASE WHEN status = 'complained' THEN at END, CASE WHEN status = 'complained' THEN code END,
        CASE WHEN status = 'unsubscribed' THEN at END, CASE WHEN status = 'unsubscribed' THEN code END,
        CASE WHEN status IN ('bounced', 'invalid') THEN at END, CASE WHEN status IN ('bounced', 'invalid') THEN status END,
        CASE WHEN status IN ('bounced', 'invalid') THEN code END
    FROM refused
    ON CONFLICT (organization_id, channel, address) DO UPDATE SET
        provider = excluded.provider, changed_by = NULL, changed_at = now(),
        complained_at = greatest(c.complained_at, excluded.complained_at),
        complaint_code = CASE WHEN excluded.complained_at > coalesce(c.complained_at, '-infinity')
            THEN excluded.complaint_code ELSE c.complaint_code END,
        unsubscribed_at = greatest(c.unsubscribed_at, excluded.unsubscribed_at),
        unsubscribe_code = CASE WHEN excluded.unsubscribed_at > coalesce(c.unsubscribed_at, '-infinity')
            THEN excluded.unsubscribe_code ELSE c.unsubscribe_code END,
        failed_at = greatest(c.failed_at, excluded.failed_at),
        failed_as = CASE WHEN excluded.failed_at > coalesce(c.failed_at, '-infinity')
            THEN excluded.failed_as ELSE c.failed_as END,
        failure_code = CASE WHEN excluded.failed_at > coalesce(c.failed_at, '-infinity')
            THEN excluded.failure_code ELSE c.failure_code END
"""

# A push token that nobody has any more leaves its user.
DEAD_TOKENS = """
DELETE FROM contact_points p USING contacts c
WHERE c.id = ANY(%s::uuid[]) AND c.channel = 'push' AND c.status = 'invalid' AND p.channel = 'push'
  AND p.organization_id = c.organization_id AND p.address = c.address
"""

# The components of a contact, in the order of the fields of Contact.
COMPONENTS = (
    "extract(epoch FROM complained_at)::float8, complaint_code, extract(epoch FROM failed_at)::float8, failed_as, failure_code, "
    "extract(epoch FROM exhausted_at)::float8, extract(epoch FROM unsubscribed_at)::float8, unsubscribe_code, "
    "extract(epoch FROM resubscribed_at)::float8, extract(epoch FROM reset_at)::float8, "
    "extract(epoch FROM delivered_at)::float8, "
    "ARRAY(SELECT extract(epoch FROM s)::float8 FROM unnest(soft_bounces) AS s ORDER BY s)"
)

# Rows that are not there yet come to be, so that all can be locked in one order.
ENSURE = """
INSERT INTO contacts (id, organization_id, channel, address, recipient)
SELECT gen_random_uuid(), organization_id, channel, contact_address(channel, recipient), recipient
FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(organization_id, channel, recipient)
ORDER BY 2, 3, 4
ON CONFLICT DO NOTHING
"""
LOCK = f"""
SELECT c.organization_id, c.channel, c.address, c.id, {COMPONENTS}
FROM contacts c JOIN unnest(%s::text[], %s::text[], %s::bytea[]) AS u(organization_id, channel, address)
    USING (organization_id, channel, address)
ORDER BY c.organization_id, c.channel, c.address FOR UPDATE OF c
"""
CHANGE = """
UPDATE contacts c
SET complained_at = to_timestamp(u.complained_at_s), complaint_code = u.complaint_code,
    failed_at = to_timestamp(u.failed_at_s), failed_as = u.failed_as, failure_code = u.failure_code,
    exhausted_at = to_timestamp(u.exhausted_at_s), unsubscribed_at = to_timestamp(u.unsubscribed_at_s),
    unsubscribe_code = u.unsubscribe_code, resubscribed_at = to_timestamp(u.resubscribed_at_s),
    reset_at = to_timestamp(u.reset_at_s), delivered_at = to_timestamp(u.delivered_at_s),
    soft_bounces = ARRAY(SELECT to_timestamp(s) FROM unnest(u.soft_bounces) AS s),
    provider = coalesce(u.provider, c.provider), changed_by = u.changed_by, changed_at = now(), note = u.note
FROM json_to_recordset(%s::json) AS u(id uuid, complained_at_s float8, complaint_code text, failed_at_s float8, failed_as text,
    failure_code text, exhausted_at_s float8, unsubscribed_at_s float8, unsubscribe_code text, resubscribed_at_s float8,
    reset_at_s float8, delivered_at_s float8, soft_bounces float8[], provider text, changed_by uuid, note text)
WHERE c.id = u.id
"""
