-- Finds the oldest answers to batches, so that they can be forgotten. There is a row for a batch with a key, not for a notification.
-- It is built without stopping writers, which can not be done inside a transaction. So every statement may be repeated, and what a
-- failed build left behind goes first.
-- transactional: false
-- depends: 0011_history
DROP INDEX CONCURRENTLY IF EXISTS batch_answers_age;
CREATE INDEX CONCURRENTLY batch_answers_age ON batch_answers (created_at);
