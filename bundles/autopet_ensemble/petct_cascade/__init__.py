"""The two-stage method around the networks: finding and judging studies, preparing, running the ensemble, scoring, reporting."""
