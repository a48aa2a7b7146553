-- Finds the notification of a report that names only the provider's own id of the message. Of SendGrid that id is not one
-- message's but a whole request's, and its reports bring our id back.
-- It is built without stopping writers, which can not be done inside a transaction. So every statement may be repeated, and what a
-- failed build left behind goes first.
-- transactional: false
-- depends: 0005_feedback

DROP INDEX CONCURRENTLY IF EXISTS notifications_provider_message;

CREATE INDEX CONCURRENTLY notifications_provider_message ON notifications (provider_message_id)
    WHERE provider_message_id IS NOT NULL AND provider <> 'sendgrid';
