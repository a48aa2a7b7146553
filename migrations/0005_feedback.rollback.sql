ALTER TABLE notifications DROP COLUMN ignores_suppression;
DROP TABLE confirmations;
DROP TABLE feedback;
DROP TABLE contacts;
DROP FUNCTION contact_address(text, text);
