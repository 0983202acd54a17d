"""Generated from protos/headrace/v1 by `make proto`; nothing here is written by hand."""
