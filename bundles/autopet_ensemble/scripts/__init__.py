"""The Python of the autoPET bundles: phantoms, preparation, the cascade, scores, reports, the pipeline."""
