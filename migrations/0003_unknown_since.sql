-- Of the attempts whose effect is not known and that nobody has decided about since: when the first passed the gate, and when the
-- last was given up. NULL without any.
-- depends: 0001_first_schema

ALTER TABLE notifications
    ADD COLUMN unknown_since timestamptz,
    ADD COLUMN unknown_last timestamptz;
