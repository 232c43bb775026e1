"""What can go wrong because of something a person typed or brought, told so that they can mend it."""


class UserError(Exception):
    """Something a person can mend: the message says what was expected, what came, where, and what to type next."""

    exit_code = 1


class ConfigError(UserError):
    """`params.yaml` or the command line is not what the schema expects (exit code 2)."""

    exit_code = 2


class PhotoError(UserError):
    """One photo cannot be used: becomes a quarantined row of the manifest, with this text as the reason."""

    def __init__(self, reason: str, kind: str = "picture", source: str = "") -> None:
        super().__init__(reason)
        self.kind = kind
        """One word for the kind of reason, by which the report counts."""
        self.source = source
        """The manifest's column of the picture at fault; empty where it is the input, or not one picture alone."""
