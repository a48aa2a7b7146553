-- Push tokens that expire, and people who are to be forgotten.
-- It only adds, so a process of the release before goes on working beside it.
-- depends: 0008_scheduled

CREATE INDEX contact_points_expiry ON contact_points (expires_at) WHERE expires_at IS NOT NULL;

-- Whose data is being erased. A row goes when nothing of theirs can turn up any more: see actors/store/erasing.py.
CREATE TABLE erasures (
    organization_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id         text NOT NULL,
    asked_at        timestamptz NOT NULL DEFAULT now(),
    next_at         timestamptz NOT NULL,          -- when it is looked for again what has turned up since
    PRIMARY KEY (organization_id, user_id)
);
