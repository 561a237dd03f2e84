"""The rules, one module a theme. A rule is one function; see `checks.values`."""
