-- When the first and the last attempt began whose effect is not known and that nobody has decided about since. NULL without any.
-- depends: 0001_first_schema

ALTER TABLE notifications
    ADD COLUMN unknown_since timestamptz,
    ADD COLUMN unknown_last timestamptz;
