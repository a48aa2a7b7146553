DROP TRIGGER confirmations_worse ON confirmations;
DROP TRIGGER confirmations_first ON confirmations;
DROP FUNCTION confirmations_count_worse, confirmations_count_first;
DROP TRIGGER notifications_ended ON notifications;
DROP TRIGGER notifications_accepted ON notifications;
DROP FUNCTION notifications_count_ended, notifications_count_accepted;
DROP TABLE count_deltas, counts;
DROP TABLE notification_history;
