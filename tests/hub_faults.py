"""How the Hub of the tests can fail whoever publishes: a request, what becomes of it, and words that a person hears."""

FAULTS: dict[str, tuple[str, str, int | str, str]] = {
    "401": ("GET", "whoami", 401, "does not accept this access token"),
    "403 to create": ("POST", "repos/create", 403, "does not let this access token"),
    "403 to commit": ("POST", "/commit/", 403, "does not let this access token"),
    "409": ("POST", "/commit/", 409, "somebody else changed"),
    "429": ("POST", "/commit/", 429, "too many requests"),
    "500": ("POST", "/commit/", 500, "try again later"),
    "cut": ("PUT", "/storage/", "cut", "broke while"),
    "wrong hash": ("PUT", "/storage/", "wrong-hash", "did not take"),
    "refused card": ("POST", "validate-yaml", 400, "refuses the lines between the two"),
}
