"""The recipes that learn the density of a table: reading it, the flow, figures in the data's own units, pictures."""
