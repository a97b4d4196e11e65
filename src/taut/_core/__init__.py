"""Ground shared by every layer: errors, status, precision, progress, tracing."""
