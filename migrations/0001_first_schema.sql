-- The first schema. Notifications are the truth; Redis holds only an index that can be rebuilt from here.
-- depends:

CREATE TABLE organizations (
    id              text PRIMARY KEY,
    name            text NOT NULL,
    default_locale  text NOT NULL DEFAULT 'en',
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id              uuid PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name            text NOT NULL,
    key_hash        bytea NOT NULL UNIQUE,        -- SHA-256 of the whole key: 256 bits of entropy need no slow hash
    scopes          text[] NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    revoked_at      timestamptz
);
CREATE INDEX api_keys_organization ON api_keys (organization_id);

CREATE TABLE notification_templates (
    id              uuid PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name            text NOT NULL,
    channel         text NOT NULL CHECK (channel IN ('email', 'sms', 'push', 'whatsapp')),
    locale          text NOT NULL,
    version         integer NOT NULL,
    subject         text,
    body_template   text NOT NULL,
    html_template   text,
    variables       jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz,                   -- a deleted template stays readable for the notifications that used it
    UNIQUE (organization_id, name, channel, locale, version)
);
CREATE INDEX notification_templates_name ON notification_templates (organization_id, name);

CREATE TABLE delivery_provider_configs (
    id              uuid PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    provider        text NOT NULL,
    channel         text NOT NULL CHECK (channel IN ('email', 'sms', 'push', 'whatsapp')),
    credentials     bytea NOT NULL,                -- sealed: key id, nonce and ciphertext; see dispatcher/vault.py
    settings        jsonb NOT NULL DEFAULT '{}',
    priority        integer NOT NULL DEFAULT 0,    -- lowest first
    revision        integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX delivery_provider_configs_provider ON delivery_provider_configs (organization_id, provider);

-- One row proves that the encryption keys in the environment open what is stored here.
CREATE TABLE encryption_check (
    key_id          text PRIMARY KEY,
    sealed          bytea NOT NULL
);

CREATE TABLE notifications (
    id              uuid PRIMARY KEY,              -- UUIDv7: time-ordered, so inserts touch the right edge of the index
    organization_id text NOT NULL,                 -- no foreign key: its check would lock the organization's row at every insert
    status          text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'sending', 'delivered', 'failed')),
    channel         text NOT NULL CHECK (channel IN ('email', 'sms', 'push', 'whatsapp')),
    attempts        smallint NOT NULL DEFAULT 0,
    attempts_max    smallint NOT NULL,
    unknowns        smallint NOT NULL DEFAULT 0,   -- attempts whose effect at the provider is not known: possible doubles
    rescues         smallint NOT NULL DEFAULT 0,   -- attempts that died with their process
    claimed_by      uuid,                          -- the process incarnation that holds the attempt while 'sending'
    next_retry_at   timestamptz,
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,          -- of the last change of status
    user_id         text,
    recipient       text NOT NULL,
    payload         jsonb NOT NULL,                -- rendered
    template_id     uuid,
    locale          text,
    idempotency_key text,
    request_hash    bytea,                         -- of the item as it was handed in, to tell a replay from a conflict
    provider        text,
    provider_config_id uuid,
    provider_message_id text,
    reason          text                           -- the code of the last outcome that was not a delivery
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX notifications_idempotency ON notifications (organization_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX notifications_status ON notifications (organization_id, status);
-- Small, because most rows are final: what recovery and the re-seeding of Redis scan.
CREATE INDEX notifications_pending ON notifications (updated_at) WHERE status IN ('queued', 'sending');
CREATE INDEX notifications_expiry ON notifications (expires_at) WHERE status = 'queued' AND expires_at IS NOT NULL;

-- The timeline keeps a row for every attempt that was not simply delivered at the first try.
CREATE TABLE attempts (
    notification_id uuid NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    attempt         smallint NOT NULL,
    organization_id text NOT NULL,
    outcome         text NOT NULL,
    code            text NOT NULL,
    provider        text,
    provider_config_id uuid,
    at              timestamptz NOT NULL,
    next_retry_at   timestamptz,
    PRIMARY KEY (notification_id, attempt, at)
);

CREATE TABLE dead_letters (
    notification_id uuid PRIMARY KEY REFERENCES notifications (id) ON DELETE CASCADE,
    organization_id text NOT NULL,
    reason          text NOT NULL,
    code            text NOT NULL,
    channel         text NOT NULL,
    provider        text,
    created_at      timestamptz NOT NULL
);
CREATE INDEX dead_letters_organization ON dead_letters (organization_id, notification_id);

-- The answer to a batch that carried an Idempotency-Key header, kept so that a replay gets the same one.
CREATE TABLE batch_answers (
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    idempotency_key text NOT NULL,
    request_hash    bytea NOT NULL,
    answer          text NOT NULL,                 -- JSON, byte for byte as it was first given
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, idempotency_key)
);

-- A running process renews its lease here; what a lapsed one left 'sending' is put back by the janitor of any other.
CREATE TABLE incarnations (
    id              uuid PRIMARY KEY,
    started_at      timestamptz NOT NULL DEFAULT now(),
    lease_until     timestamptz NOT NULL
);
