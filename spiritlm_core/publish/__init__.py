"""The folder that is published: model, speech tokenizer, model card, lineage."""
