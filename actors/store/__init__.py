"""SQL, one module per resource: plain functions of a pool. Nothing above this package writes a statement."""
