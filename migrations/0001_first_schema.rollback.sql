DROP TABLE incarnations, batch_answers, dead_letters, attempts, notifications, encryption_check,
    delivery_provider_configs, notification_templates, api_keys, organizations;
