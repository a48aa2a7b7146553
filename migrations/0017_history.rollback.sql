DROP TRIGGER notifications_ended ON notifications;
DROP TRIGGER notifications_accepted ON notifications;
DROP FUNCTION notifications_count_ended, notifications_count_accepted;
DROP TABLE count_deltas, counts;
DROP TABLE notification_history;
