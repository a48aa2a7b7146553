-- Events, the set-up that turns them into notifications, and the people who get them.
-- It only adds, so a process of the release before goes on working beside it.
-- depends: 0006_feedback_messages

-- What an organization has set up, apart from templates and providers: rules, topics, layouts, catalogues of translations and its
-- policy. Each is one document, checked when it is stored.
CREATE TABLE definitions (
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    kind            text NOT NULL CHECK (kind IN ('rule', 'topic', 'layout', 'catalogue', 'policy')),
    name            text NOT NULL,
    body            jsonb NOT NULL,
    revision        integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, kind, name)
);

-- A version without a date of publication is a draft. What an older process stores is published at once, as it always was.
-- "parts" has what channels need beside the three old columns, "schema" is a JSON Schema of the variables.
ALTER TABLE notification_templates
    ADD COLUMN published_at timestamptz DEFAULT now(),
    ADD COLUMN parts jsonb DEFAULT '{}',
    ADD COLUMN schema jsonb;

CREATE TABLE users (
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id              text NOT NULL,
    locale          text,
    time_zone       text,
    quiet_hours     jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, id)
);

-- Where a user is reached. A push token is one of an app on a platform; it belongs to whoever registered it last.
CREATE TABLE contact_points (
    id              uuid PRIMARY KEY,
    organization_id text NOT NULL,
    user_id         text NOT NULL,
    channel         text NOT NULL CHECK (channel IN ('email', 'sms', 'push', 'whatsapp')),
    address         bytea NOT NULL,                -- contact_address(channel, recipient)
    recipient       text NOT NULL,
    app             text,
    platform        text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    refreshed_at    timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    FOREIGN KEY (organization_id, user_id) REFERENCES users (organization_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX contact_points_address ON contact_points (organization_id, user_id, channel, address);
CREATE UNIQUE INDEX contact_points_token ON contact_points (organization_id, address) WHERE channel = 'push';

-- What a person wants to get, by topic and channel; '*' stands for every one. No row: the topic's default.
CREATE TABLE preferences (
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id         text NOT NULL,
    topic           text NOT NULL,
    channel         text NOT NULL CHECK (channel IN ('email', 'sms', 'push', 'whatsapp', '*')),
    allowed         boolean NOT NULL,
    source          text NOT NULL,                 -- who said so: api or unsubscribe_link
    changed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, user_id, topic, channel)
);

-- When what a frequency cap counts was, or will be, sent to somebody: the latest times, as many as the cap allows.
CREATE TABLE cap_times (
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id         text NOT NULL,
    cap             text NOT NULL,
    times           timestamptz[] NOT NULL,
    PRIMARY KEY (organization_id, user_id, cap)
) WITH (fillfactor = 80);

-- What came of an event; its data is not kept.
CREATE TABLE events (
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id              text NOT NULL,
    type            text NOT NULL,
    request_hash    bytea NOT NULL,
    correlation_id  text,
    received_at     timestamptz NOT NULL DEFAULT now(),
    answer          text NOT NULL,                 -- JSON, byte for byte as it was first given
    PRIMARY KEY (organization_id, id)
);
CREATE INDEX events_received ON events (received_at);

-- Events that wait to be told of together, one row a person, channel and rule.
CREATE TABLE digests (
    id              uuid PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    rule            text NOT NULL,
    user_id         text NOT NULL,
    channel         text NOT NULL,
    key             text NOT NULL,
    due_at          timestamptz NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, rule, user_id, channel, key)
);
CREATE INDEX digests_due ON digests (due_at);

CREATE TABLE digest_items (
    digest_id       uuid NOT NULL REFERENCES digests (id) ON DELETE CASCADE,
    event_id        text NOT NULL,
    correlation_id  text,
    data            jsonb NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (digest_id, event_id)
);
