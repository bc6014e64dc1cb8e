"""Small problems whose constants are known: what the theory's statements are checked on."""
