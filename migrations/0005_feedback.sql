-- What providers report later, and what is known of the people we send to.
-- depends: 0004_dead_letter_workbench

-- What identifies a contact: of an email address the case does not matter (in ASCII, which is what mail servers agree on). A
-- digest, because a push token may be longer than an index entry. dispatcher/contacts.py has the same in Python.
CREATE FUNCTION contact_address(channel text, recipient text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sha256(convert_to(CASE WHEN channel = 'email' THEN lower(recipient COLLATE "C") ELSE recipient END, 'UTF8'));

-- The times are those of the latest event of each kind, so that events give the same in whatever order they come. An active
-- contact has a row only if something has ever been heard of it.
CREATE TABLE contacts (
    id              uuid NOT NULL UNIQUE,
    organization_id text NOT NULL,
    channel         text NOT NULL CHECK (channel IN ('email', 'sms', 'push', 'whatsapp')),
    address         bytea NOT NULL,
    recipient       text NOT NULL,                 -- as it was last handed in
    complained_at   timestamptz,
    complaint_code  text,
    failed_at       timestamptz,                   -- bounced for good, or gone
    failed_as       text CHECK (failed_as IN ('bounced', 'invalid')),
    failure_code    text,
    exhausted_at    timestamptz,                   -- by soft bounces: when there were too many
    unsubscribed_at timestamptz,
    unsubscribe_code text,
    resubscribed_at timestamptz,
    reset_at        timestamptz,                   -- by hand: what happened before that does not count any more
    delivered_at    timestamptz,                   -- soft bounces before that do not count any more; kept only beside some
    soft_bounces    timestamptz[] NOT NULL DEFAULT '{}',
    provider        text,                          -- who reported last
    changed_by      uuid,                          -- the API key of the last change by hand, null after a report
    changed_at      timestamptz NOT NULL DEFAULT now(),
    note            text,
    status          text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN complained_at > coalesce(reset_at, '-infinity') THEN 'complained'
            WHEN failed_at > coalesce(reset_at, '-infinity') THEN failed_as
            WHEN exhausted_at > coalesce(reset_at, '-infinity') THEN 'bounced'
            WHEN unsubscribed_at > greatest(coalesce(reset_at, '-infinity'), coalesce(resubscribed_at, '-infinity'))
                THEN 'unsubscribed'
            ELSE 'active'
        END) STORED,
    PRIMARY KEY (organization_id, channel, address)
);
CREATE INDEX contacts_page ON contacts (organization_id, id);

ALTER TABLE notifications ADD COLUMN ignores_suppression boolean;  -- to be sent although its contact has bounced or opted out

-- Reports that were taken in. The key is made of the time and the id that the provider gave the event: what comes twice has
-- the same, new ones touch the right edge of the index, and the oldest can be deleted from its left.
CREATE TABLE feedback (
    key             uuid PRIMARY KEY,
    organization_id text NOT NULL,
    config_id       uuid NOT NULL,
    notification_id uuid,                          -- null while it is not known which one it is about
    message_id      text,                          -- kept only as long as that is not known
    kind            text NOT NULL,
    code            text NOT NULL,
    at              timestamptz NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX feedback_notification ON feedback (notification_id) WHERE notification_id IS NOT NULL;
CREATE INDEX feedback_parked ON feedback (received_at) WHERE message_id IS NOT NULL;

-- What is known in the end of a notification that was handed to its provider. Beside the hot table, not in it: a report must not
-- write that row anew, nor wait for whoever does.
CREATE TABLE confirmations (
    notification_id uuid PRIMARY KEY,
    state           text NOT NULL,
    rank            smallint NOT NULL,
    code            text NOT NULL,
    at              timestamptz NOT NULL
) WITH (fillfactor = 80);
