"""From a trained model to scores: export, Triton repository, server, deployment, scorer. Knows no Dagster."""
