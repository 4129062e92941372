"""One step of the way each: `build()` makes its components, `bind()` its events. Panels do not know each other."""
