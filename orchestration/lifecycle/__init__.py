"""What assets and the command line both do with a model and a night."""
