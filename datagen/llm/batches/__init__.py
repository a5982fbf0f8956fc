"""Provider batches: calls that can be made now are submitted together, and a later run reads their answers."""
