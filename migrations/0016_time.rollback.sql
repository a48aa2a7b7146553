DROP INDEX digest_items_correlation;
