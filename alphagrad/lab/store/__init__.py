"""The MLflow store: where it is, and a connection that endures its failures."""
