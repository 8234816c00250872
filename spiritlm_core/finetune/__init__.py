"""Fine-tuning and few-shot prompts on a user's own data: templates, rows, examples, training, metrics."""
