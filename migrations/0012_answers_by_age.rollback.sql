DROP INDEX batch_answers_age;
