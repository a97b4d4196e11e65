"""How far to trust a fit: importance weights, drifting chains, restarts, evidence, the verdict."""
